"""What `graft status` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.common.core.paths import STAGES

from .pending import Changes
from .reasons import Reason

if TYPE_CHECKING:
    pass  # which loads MLflow


def print_changes(changes: Changes) -> None:
    """What would run, stage by stage."""
    if changes.note:
        print(f"{changes.note}\n")
    if changes.empty:
        print("nothing to do: images, code and parameters are as they were when the stages last ran")
        return
    print(f"{changes.sentence}\n")
    table = Table("stage", "", "because", box=None)
    for stage in STAGES:
        if stage in changes.stages:
            table.add_row(stage, "runs", words(changes.reasons[stage]))
        elif stage in changes.downstream:
            table.add_row(stage, "may run", "if what it gets from the stages before it changes")
        else:
            table.add_row(stage, "as it is", "")
    Console().print(table)


def words(reasons: tuple[Reason, ...], note: str = "") -> str:
    return escape("; ".join([*(reason.words for reason in reasons), *([note] if note else [])]))
