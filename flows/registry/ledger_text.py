"""What `graft ledger` prints."""

from __future__ import annotations

from itertools import chain
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.data.task import METRICS


def print_ledger(kept: list[dict[str, Any]]) -> None:
    table = Table("when (UTC)", "", "version", "before", "labels", "by", "why", box=None)
    for entry in kept:
        what = entry["what"].replace("_", " ")
        when = entry["at"][:16].replace("T", " ")
        row = [when, what, entry["version"], entry["previous"], _labels(entry), entry["by"], entry["why"]]
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table if kept else "the ledger is empty: no model has been registered")


def _labels(entry: dict[str, Any]) -> str:
    """How many labels people gave since the last champion, and by how much the metric changed."""
    if not entry.get("labels"):
        return ""
    count, found = f"{entry['labels']:,}", entry["metrics"]
    for metric in chain.from_iterable(METRICS.values()):
        now, before = found.get(metric.key), found.get(f"champion_{metric.key}")
        if now is not None and before is not None:
            gain = now - before
            return f"{count}: {100 * gain:+.1f} points" if metric.percent else f"{count}: {gain:+.3f}"
    return count
