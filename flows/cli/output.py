"""How commands print what they found: as one JSON document, or as a table of two columns."""

from __future__ import annotations

import json
from typing import Any


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def show(values: dict[str, Any], as_json: bool, title: str = "") -> None:
    """Prints one row for each value, with readable numbers."""
    if as_json:
        print_json(values)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, show_header=False, title_justify="left")
    for key, value in values.items():
        table.add_row(key.replace("_", " "), escape(text_of(value)))
    Console().print(table)


def text_of(value: Any) -> str:
    """A value for people: grouped digits, four significant digits of a fraction, one line for each entry."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {text_of(inner)}" for key, inner in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
