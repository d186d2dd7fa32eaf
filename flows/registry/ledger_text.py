"""What `graft ledger` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_ledger(kept: list[dict[str, Any]]) -> None:
    table = Table("when (UTC)", "", "version", "before", "by", "why", box=None)
    for entry in kept:
        what = entry["what"].replace("_", " ")
        row = [entry["at"][:16].replace("T", " "), what, entry["version"], entry["previous"], entry["by"], entry["why"]]
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table if kept else "the ledger is empty: no model has been registered")
