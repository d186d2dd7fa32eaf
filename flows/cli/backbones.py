"""The commands that show pretrained networks and what they see: `graft models` and `graft classify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from graft.tasks.common.core.errors import GraftError

from .options import HERE, SETTINGS, TRAIN, USE, AsJson, Project, examples
from .output import print_json

app = typer.Typer(**SETTINGS)


@app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft models": "the list",
            "graft models ResNet50": "everything about one network",
            "graft models convnext --all": "search all of timm",
            "graft models --measure": "the speed of those that are here",
        }
    ),
)
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Names from this list or timm. A single name shows everything about that network. With --all, a part "
            "of a name.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Search all of timm for NAME.")] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure images per second on this machine, for the named networks or all whose weights are here.",
        ),
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Print every column, however long the lines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """List pretrained networks and show which weights are on this machine.

    The list is in groups: the Keras table, modern networks, and networks of installed weights packages. Needs no
    project.
    """
    from ..backbones import table, table_text
    from ..runtime.locations import place_of

    place, asked = place_of(project), names or []
    if everything:
        found = table.search(_one_word(asked, measure), place)
    else:
        if measure:
            table.measure(asked, place)
        if len(asked) == 1 and not (measure or as_markdown):
            whole = table.describe(asked[0], place)
            print_json(whole) if as_json else table_text.print_network(whole)
            return
        found = table.rows_of(asked, place)
    if as_json:
        print_json(found)
    elif as_markdown:
        print(table_text.markdown(table_text.FOUND, found) if everything else table_text.markdown_groups(found))
    elif everything:
        table_text.print_table(table_text.FOUND, found, wide=wide)
    else:
        table_text.print_groups(found, wide=wide)
        if not asked:
            print("\n".join(["", *table_text.CAPTION]))


def _one_word(asked: list[str], measure: bool) -> str:
    if measure or len(asked) > 1:
        raise GraftError(
            "`--all` takes at most one NAME, and excludes `--measure`",
            got=" ".join([*asked, *(["--measure"] if measure else [])]),
            allowed="a part of a name, or nothing",
            todo="search for one part of a name, then measure what was found: graft models NAME --measure",
        )
    return asked[0] if asked else ""


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        {
            "graft classify cat.jpg": "with the project's backbone",
            "graft classify photos --backbone ResNet50 --top 1": "a folder",
        }
    ),
)
def classify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files, or folders of them.")],
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A name from Keras or timm; the default is the project's backbone, or tf_efficientnet_lite0."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="As `features.weights`; the default is the project's value, or auto."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels to show for each image.")] = 5,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Classify images with a pretrained network's own ImageNet classifier.

    The exit code is 2 if an image cannot be read.
    """
    from ..backbones.classify import classifier_for, files_of
    from ..runtime.locations import place_of

    files = files_of(paths)
    seen = []
    for found in classifier_for(backbone, weights, place_of(project)).look(files, top):
        seen.append(found)
        if found.error:
            print(f"error: {found.file}: {found.error}", file=sys.stderr, flush=True)
        elif not as_json:
            print(found.file)
            for _, label, probability in found.guesses:
                print(f"  {probability:6.1%}  {label}", flush=True)
    if as_json:
        print_json([found.row() for found in seen])
    if any(found.error for found in seen):
        raise SystemExit(2)
