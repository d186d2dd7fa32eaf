"""What `graft why` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .why import Explanation
from ..status.pending_text import words


def print_explanation(found: Explanation) -> None:
    """Why each stage of an execution ran."""
    print(f"{found.name} ({found.run_id})\n{found.sentence}\n")
    table = Table("stage", "", "because", "run", "compared with", box=None)
    for stage in found.stages:
        table.add_row(stage.stage, stage.did, words(stage.reasons, stage.note), stage.run_id[:8], stage.before[:8])
    Console().print(table)
