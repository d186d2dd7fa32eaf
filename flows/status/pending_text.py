"""What `graft status` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.core.paths import STAGES

from .pending import Changes
from .reasons import Reason


def print_changes(changes: Changes) -> None:
    """Prints what would run, stage by stage, and each reason once."""
    if changes.note:
        print(f"{changes.note}\n")
    if changes.empty:
        print("nothing to do: images, code and parameters are unchanged since the last run")
        return
    print(f"{changes.sentence}\n")
    table = Table("stage", "", "because", box=None)
    first: dict[str, str] = {}  # reason -> the first stage that has it
    for stage in STAGES:
        if stage in changes.stages:
            because = words(changes.reasons[stage])
            same = first.setdefault(because, stage)
            table.add_row(stage, "runs", because if same == stage else f"as {same}")
        else:
            table.add_row(stage, "may run" if stage in changes.downstream else "unchanged", "")
    Console().print(table)
    if changes.downstream:
        print("\nA stage that may run runs only if the stages before it produce something else.")


def words(reasons: tuple[Reason, ...]) -> str:
    return escape("; ".join(reason.words for reason in reasons))
