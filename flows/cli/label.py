"""`graft label`, the page, and `graft label add`, `next` and `apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import find_root
from graft.tasks.common.core.progress import say
from graft.tasks.common.core.words import NAMED

from .options import HERE, SETTINGS, AsJson, Panels, Project, examples
from .output import print_json, show

Commit = Annotated[
    bool,
    typer.Option(
        "--commit", help="Commit and push data/labels.csv, alone; images of the pool are left to the unattended run."
    ),
]

app = typer.Typer(cls=Panels, **{**SETTINGS, "no_args_is_help": False})


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        {
            "graft label": "the page, on this machine",
            "graft label --host 0.0.0.0 --key-file label.key": "for others, who need the key",
            "graft label --twice 0.1": "ask two people about a tenth",
            "graft label --commit": "push the labels at the end, for the next night",
        }
    ),
)
def page(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8001,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key that others need; or set GRAFT_SERVE_KEY.", show_default=False),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name under which others may ask; may be repeated.", show_default=False),
    ] = None,
    twice: Annotated[
        float, typer.Option(min=0, max=1, help="The share of images to ask two people about, to see if they agree.")
    ] = 0.0,
    commit: Commit = False,
    project: Project = HERE,
) -> None:
    """Label images on a page; which to label next, and answers from a table.

    Each answer is in data/labels.csv before the next image shows. When the page ends, images of the pool that have a
    label are imported into data/raw; with --commit, by the next unattended run.
    """
    if context.invoked_subcommand is not None:
        return
    from ..labelling.server.start import Settings, label

    settings = Settings(host, port, key_file, tuple(allowed_host or ()), twice, commit)
    print(label(find_root(project), settings))


@app.command(
    epilog=examples(
        {
            "graft label add photos": "a folder of images without labels",
            "graft label add log": "what `graft serve --log log` has kept",
        }
    )
)
def add(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, a table with a column path (and group), or the folder of `graft serve --log`.",
            show_default=False,
        ),
    ],
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Add images without a label to the pool, data/pool, which DVC keeps.

    Images that the project has already are left out. No stage runs because of the pool.
    """
    from ..labelling.pool import add_to_pool

    added = add_to_pool(find_root(project), source)
    refused = [f"{name}: {why}" for name, why in list(added.refused.items())[:NAMED]]
    if len(added.refused) > NAMED:
        refused.append(f"and {len(added.refused) - NAMED:,} more")
    found = {"new": added.new, "known": added.known, "refused": len(added.refused)}
    if as_json:
        print_json({**found, "refused": added.refused})
        return
    show({**found, **({"why": "\n".join(refused)} if refused else {})}, False, "data/pool")


@app.command(
    "next",
    epilog=examples(
        {
            "graft label next 40": "the 40 images whose labels would help most",
            "graft label next 40 --output ask.csv": "as a table to fill in",
            "graft label next 40 --strategy random": "a fair sample",
        }
    ),
)
def next_(
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="How many images.", show_default=False)],
    strategy: Annotated[
        Literal["auto", "typical", "margin", "random"],
        typer.Option(
            help="typical: one of each kind of image; margin: where the model is least sure; random: a fair sample; "
            "auto: typical first, then margin, but random if that was worse on the labels that are there. One "
            "image in twenty is always drawn at random."
        ),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a table with an empty column label.")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw how auto and random did on the labels that are there."),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Choose the images of the pool to label next.

    Fill in the column label of the table, then `graft label apply FILE`. Images that were chosen are only trained on:
    the model is tested on those that were drawn at random.
    """
    from ..labelling.choice import draw_curve, next_images, remarks, summary

    asked = next_images(find_root(project), number, strategy)
    if output is not None:
        with whole_file(output.resolve()) as part:
            asked.table.to_csv(part, index=False)
    if curve is not None:
        draw_curve(asked, curve)
    if as_json:
        print_json({**summary(asked), "rows": asked.table.to_dict("records")})
        return
    if output is not None:
        chosen = {key: value for key, value in summary(asked).items() if key not in ("simulation", "forecast")}
        show({**chosen, "table": str(output)}, False, "to label next")
    else:
        for row in asked.table.itertuples():
            print(f"{row.path}  {row.why}{_guess(row.guess, row.probability)}")
    for line in remarks(asked):
        say(line)


def _guess(guess: str, probability: float | None) -> str:
    sure = "" if probability is None or probability != probability else f" ({probability:.0%})"
    return f"  {guess}{sure}?" if guess else ""


@app.command(
    epilog=examples(
        {
            "graft label apply ask.csv": "take the answers of a table",
            "graft label apply ask.csv --by ann": "given by ann",
        }
    )
)
def apply(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A table with image_id or path, and label: a label, !discard or !unsure; empty for later. Or the "
            "JSON of Label Studio, or of COCO.",
            show_default=False,
        ),
    ],
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who gave the answers, by default git's user.name.")
    ] = "",
    commit: Commit = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Take answers from a table into data/labels.csv.

    Labels count over those of folders and tables; no file is moved. Images of the pool that have a label now are
    imported into data/raw; with --commit, by the next unattended run.
    """
    from ..labelling.apply import apply_labels

    show(apply_labels(find_root(project), file, by, commit=commit), as_json, "data/labels.csv")


@app.command(
    epilog=examples(
        {
            "graft label export tasks.json": "for Label Studio",
            "graft label export coco.json --format coco": "one category an image",
        }
    )
)
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.", show_default=False)],
    form: Annotated[
        Literal["label-studio", "coco", "csv"], typer.Option("--format", help="The form of the file.")
    ] = "label-studio",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Write all images, those of the pool too, with their labels, for another tool.

    `graft label apply FILE` takes back what that tool exports.
    """
    from ..labelling.exchange import export_labels

    show(export_labels(find_root(project), file.resolve(), form), as_json, str(file))
