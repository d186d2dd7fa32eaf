"""`graft predict`: what a model says about pictures."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graft.tasks.common.core.errors import GraftError

from .options import HERE, SETTINGS, USE, Project, examples

if TYPE_CHECKING:
    from graft.tasks.register.serving import ImageClassifier

    from ..serving.saliency import Explainer

app = typer.Typer(**SETTINGS)


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        {
            "graft predict cat.jpg": "by the champion",
            "graft predict photos --output answers.csv": "a folder, as a table",
            "graft predict photos --sort-into sorted --link": "links, by class",
            "graft predict cat.jpg --model exported --top 3": "without a project",
            "graft predict parts --maps where": "anomalies, and where they are",
            "find . -name '*.png' | graft predict - --json": "a list of files",
        }
    ),
)
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Image files, folders of them, tables with a column `path`, quoted patterns such as 'day/*.jpg', or - "
            "for a list on standard input.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The folder of a package; `package` for models/package; an alias or a version of the registered "
            "model. The default is the champion, or models/package if there is none."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a table: .csv, .tsv, .parquet or .jsonl. A row for each file."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="How many labels to give for each image; the default is one, and in JSON all."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="In a table, add a column p_CLASS for each class.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write each image with the regions that the answer depends on; about eighty predictions each.",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write each image under its heat map, which shows where it is anomalous, or the decoded image.",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Also copy the images into a folder for each predicted class, or good and anomalous."
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --sort-into: symbolic links instead of copies.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each image.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep features in the project's cache.")
    ] = False,
    project: Project = HERE,
) -> None:
    """Predict images with the champion, or with any packaged model.

    A file that cannot be read does not stop the others: it is named, and the exit code is 2. A package needs neither a
    project nor MLflow: copy models/package, and name it with --model.
    """
    from graft.tasks.common.core.progress import progress

    from ..serving import ahead, columns, heat_maps, known, loading, sorting, sources, writing
    from ..serving.predict import predict as predictions

    if output is not None:
        writing.check_output(output, as_json=as_json)
    files = sources.files_in(paths, sys.stdin)
    failed = 0
    with ExitStack() as opened:
        chosen = opened.enter_context(loading.open_model(model, project))
        form = columns.Columns(chosen.classifier, top or 1, probabilities)
        sorter = sorting.sorter_for(chosen.classifier, sort_into, link=link)
        drawn = heat_maps.HeatMaps(chosen.classifier, maps) if maps else None
        uses = [use.take for use in (sorter, drawn, _explainer(chosen.classifier, explain)) if use is not None]
        names = [each.name for each in files]
        writes = writing.json_lines(top) if as_json else writing.writing(output, form, top, names)
        write = writing.report_errors(opened.enter_context(writes))
        kept = None if no_cache else opened.enter_context(known.known_features(chosen))
        ahead.compute_ahead(chosen, files, kept)
        bar = opened.enter_context(progress("predicting", len(files)))
        for answer in predictions(chosen.classifier, files, kept, bar.add, maps=maps is not None):
            write(answer)
            failed += bool(answer.error)
            for use in uses:
                use(answer)
    if failed:
        raise GraftError(
            f"{failed:,} of {len(files):,} files could not be read; the others are answered",
            todo="see the lines above; leave these files out, or replace them",
        )


def _explainer(classifier: ImageClassifier, folder: Path | None) -> Explainer | None:
    """matplotlib, which draws the maps, is imported only for them."""
    if folder is None:
        return None
    from ..serving.saliency import Explainer

    return Explainer(classifier, folder)
