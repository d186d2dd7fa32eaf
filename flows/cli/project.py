"""The command that begins a project: `graft init`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import DATA, SETTINGS, AsJson, examples
from .output import print_json

app = typer.Typer(**SETTINGS)


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        {
            "graft init flowers": "a new project in the folder flowers",
            "graft init --remote s3://bucket/flowers": "this folder, with a DVC remote for images and models",
        }
    ),
)
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder; it is created if it does not exist.")
    ] = Path(),
    remote: Annotated[
        str,
        typer.Option(
            help="The address of a DVC remote, to which `dvc push` sends images and models: a folder, s3://..., ssh://...",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a folder a Graft project, under git and DVC.

    It gets dvc.yaml, params.yaml, an example of a CI workflow, and what else a project has. Nothing that exists is
    replaced. A call that was interrupted is completed by the next.
    """
    from ..project.init import init as begin

    begun = begin(folder, remote)
    if as_json:
        print_json({**asdict(begun), "root": str(begun.root)})
        return
    from ..project.init_text import print_begun

    print_begun(begun)
