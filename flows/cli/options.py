"""Options that several commands of `graft` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Of every group of commands."""

Project = Annotated[Path, typer.Option("--project", "-C", help="A folder in the project; by default the current one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
HERE = Path()
