"""The commands that bring images in: `graft sample` and `graft import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import find_root

from .options import DATA, HERE, SETTINGS, AsJson, Project, examples
from .output import show

app = typer.Typer(**SETTINGS)

Replace = Annotated[bool, typer.Option("--replace", help="Replace the images that are already in data/raw.")]
Add = Annotated[bool, typer.Option("--add", help="Add the images to those that are already in data/raw.")]
Force = Annotated[bool, typer.Option("--force", help="With --replace: also delete images that DVC does not track.")]


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        {
            "graft sample": "into a project without images",
            "graft sample --replace": "instead of its images",
        }
    ),
)
def sample(project: Project = HERE, replace: Replace = False, force: Force = False, as_json: AsJson = False) -> None:
    """Unpack 2,000 sample images into data/raw and put them under DVC."""
    from ..ingest.importing import import_sample

    show(import_sample(find_root(project), _how(replace, False), force=force), as_json, "data/raw")


@app.command(
    "import",
    rich_help_panel=DATA,
    epilog=examples(
        {
            "graft import photos": "a folder with one folder for each class",
            "graft import labels.csv --add": "add the files of a table",
            "graft import photos --replace --link": "hard links instead of copies",
        }
    ),
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder with one folder for each class, or with train/, val/ and test/ that each have these; or a "
            ".csv or .parquet table of paths and labels.",
            show_default=False,
        ),
    ],
    project: Project = HERE,
    replace: Replace = False,
    force: Force = False,
    add: Add = False,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the files instead of copying them.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Also take files outside PATH that links or a table's rows name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring your own images into data/raw and put them under DVC.

    PATH is only read.
    """
    from ..ingest.importing import import_images

    how = _how(replace, add)
    found = import_images(source, find_root(project), how, link=link, force=force, outside=allow_outside)
    show(found, as_json, "data/raw")


def _how(replace: bool, add: bool) -> Any:
    if replace and add:
        raise GraftError(
            "--replace and --add exclude each other",
            got="both",
            allowed="one of them, or neither if data/raw is empty",
            todo="leave one of them out",
        )
    return "replace" if replace else "add" if add else "new"
