"""The console script `graft`."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import prepare_process

from . import backbones, cache, data, export, history, label, packet, predict, project, run, serve, studies
from .options import DATA, OPERATE, SETTINGS, Panels

app = typer.Typer(
    name="graft",
    cls=Panels,
    help="A transfer-learning pipeline for images: frozen backbone, new head, optional fine-tuning.",
    pretty_exceptions_enable=False,
    **SETTINGS,
)

for group in (project, data, run, history, packet, studies, predict, serve, export, backbones):
    app.add_typer(group.app)
app.add_typer(label.app, name="label", rich_help_panel=DATA)
app.add_typer(cache.app, name="cache", rich_help_panel=OPERATE)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"graft {version('graft')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A transfer-learning pipeline for images: frozen backbone, new head, optional fine-tuning."""


def main() -> NoReturn:
    """Runs a command. A user error is printed without a traceback, and the exit code is 2."""
    prepare_process()
    try:
        app()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
