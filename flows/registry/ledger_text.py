"""What `graft ledger` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.data.task import MAIN


def print_ledger(kept: list[dict[str, Any]]) -> None:
    table = Table("when (UTC)", "", "version", "before", "labels", "by", "why", box=None)
    for entry in kept:
        what = entry["what"].replace("_", " ")
        when = entry["at"][:16].replace("T", " ")
        row = [when, what, entry["version"], entry["previous"], _labels(entry), entry["by"], entry["why"]]
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table if kept else "the ledger is empty: no model has been registered")


def _labels(entry: dict[str, Any]) -> str:
    """How many labels people gave since the last champion, and by how much the main metric changed."""
    if not entry.get("labels"):
        return ""
    metrics = entry["metrics"]
    for main in MAIN.values():
        before = metrics.get(f"champion_{main.key}")
        if main.key in metrics and before is not None:
            gain = metrics[main.key] - before
            return (
                f"{entry['labels']:,}: {100 * gain:+.1f} points"
                if main.percent
                else f"{entry['labels']:,}: {gain:+.3f}"
            )
    return f"{entry['labels']:,}"
