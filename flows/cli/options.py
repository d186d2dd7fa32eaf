"""What the commands of `graft` share: common options, and how help is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from graft.tasks.common.images.shard_size import LIMITS_MB, SIZE_MB

DATA, TRAIN, USE, OPERATE, LOOK = PANELS = ("Data", "Train", "Use", "Operate", "Look")
"""The headings of `graft --help`, by what you want to do."""

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
"""The settings of every group of commands."""

COLUMNS = 78
"""How wide an example may be: a terminal of eighty, less the margin of help."""

Project = Annotated[
    Path, typer.Option("--project", "-C", help="A folder in the project; the default is the current folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
HERE = Path()


Shards = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="[SIZE]",
        min=LIMITS_MB[0],
        max=LIMITS_MB[1],
        help=f"Keep the images in tar files of up to SIZE MB (default: {SIZE_MB}).",
    ),
]


class OptionalSize(TyperCommand):
    """A command whose `--shards` may stand without a number: an option of typer's takes a value always or never."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        after = [*args[1:], ""]
        words = ((word, following) for word, following in zip(args, after, strict=True))
        return super().parse_args(
            ctx,
            [
                f"{word}={SIZE_MB}" if word == "--shards" and not following.isdigit() else word
                for word, following in words
            ],
        )


def examples(lines: dict[str, str]) -> str:
    """The end of a command's help: what one may type -> what that is for."""
    width = max(map(len, lines))
    rows = [f"  {command:<{width}}  {meaning}" for command, meaning in lines.items()]
    if max(map(len, rows)) > COLUMNS:
        rows = [row for command, meaning in lines.items() for row in (f"  {command}", f"      {meaning}")]
    return "\n".join(["\b", "Examples:", *rows])  # \b: lines stay as they are


class Panels(TyperGroup):
    """A group whose help lists its commands below their headings, each with its whole first paragraph."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = str(getattr(command, "rich_help_panel", None) or "Commands")
            rows.setdefault(heading, []).append((name, _first_paragraph(command.help)))
        for heading in [*(panel for panel in PANELS if panel in rows), *(rows.keys() - PANELS)]:
            with formatter.section(heading):
                formatter.write_dl(rows[heading], col_max=12)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
