"""What `graft why` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_explanation(found: dict[str, Any]) -> None:
    """Which stages an execution ran and why; `found` is an `Explanation` as a dictionary."""
    print(f"{found['name']} ({found['run_id']})\n{found['sentence']}\n")
    table = Table("stage", "", "because", "run", "compared with", box=None)
    for stage in found["stages"]:
        because = [reason["words"] for reason in stage["reasons"]] + ([stage["note"]] if stage["note"] else [])
        row = (stage["stage"], stage["did"], escape("; ".join(because)), stage["run_id"][:8], stage["before"][:8])
        table.add_row(*row)
    Console().print(table)
