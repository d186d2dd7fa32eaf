"""HTML pages from Jinja2 templates. A page is one file, so that it is complete without a network and inside MLflow."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"
"""What pages share: `base.html` with the style, `macros.html` with tables and plots."""


def render(template: Path, **values: Any) -> str:
    """The page of a template, which may extend and import those in `TEMPLATES` and beside it.

    All values are escaped. A value that the template needs and does not get is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=_percent, decimals=_decimals, thousands=_thousands)
    return environment.get_template(template.name).render(**values)


def inlined(folder: Path) -> dict[str, str]:
    """File name -> data URI of every PNG in a folder."""
    return {file.name: _data_uri(file) for file in sorted(folder.glob("*.png"))}


def _data_uri(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}%}"


def _decimals(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}"
