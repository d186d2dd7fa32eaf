"""What `graft summary` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.data.task import MAIN

LOOK_NEXT = (
    "graft ui            runs, models, lineage",
    "dvc metrics show    all metrics",
    "graft import PATH   your own images",
)


def print_summary(found: dict[str, Any]) -> None:
    table = Table(show_header=False, title="Graft", title_justify="left")
    main = MAIN[found["task"]]
    value, low, high = (main.text(found[key]) for key in main.keys)
    table.add_row(f"test {main.title}", f"{value}  ({low} to {high}, {found['test_images']:,} images)")
    files = "1 file" if found["rejected"] == 1 else f"{found['rejected']:,} files"
    table.add_row("images", f"{found['images']:,}  ({files} rejected)")
    if "classes" in found:
        table.add_row("classes", f"{found['classes']:,}")
    else:
        table.add_row("targets", f"{found['target_min']:g} to {found['target_max']:g}")
    if found["unseen"]:
        table.add_row("not seen", f"{found['unseen']:.0%} of the area of the images (see `features.crop`)")
    table.add_row("audit", ", ".join(found["audit"]) or "no findings")
    table.add_row("chosen", found["candidate"])
    table.add_row("fine-tuning", escape(found["finetune"]))
    for stage, seconds in found["seconds"].items():
        table.add_row(stage, f"{seconds:.1f} s")
    table.add_row("model", escape("\n".join(part for part in (found["model"], found["model_note"]) if part)))
    table.add_row("look next", "\n".join([found["report"], *LOOK_NEXT]))
    Console().print(table)
