"""What `graft summary` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.data.task import Metric, main_in

from .summary import RATES

LOOK_NEXT = (
    "graft ui            runs, models, lineage",
    "dvc metrics show    the metrics of this run in a line",
    "graft import PATH   your own images",
)


def rows_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The results that `summarise` has found, as names and texts."""
    main = main_in(found)
    files = "1 file" if found["rejected"] == 1 else f"{found['rejected']:,} files"
    rows = [
        (f"test {main.title}", _measured(found, main)),
        *[(key.replace("_", " "), _rate(found, key)) for key in RATES if key in found],
        *_of_pixels(found),
        ("images", f"{found['images']:,}  ({files} rejected)"),
        _labels(found),
    ]
    if found["unseen"]:
        rows.append(("not seen", f"{found['unseen']:.0%} of the area of the images (see `features.crop`)"))
    rows += [
        ("audit", ", ".join(found["audit"]) or "no findings"),
        ("chosen", found["candidate"]),
        ("fine-tuning", found["finetune"]),
        ("model", "\n".join(part for part in (found["model"], found["model_note"]) if part)),
    ]
    return rows


def _measured(found: dict[str, Any], main: Metric) -> str:
    value, low, high = (main.text(found[key]) for key in main.keys)
    if found[main.key] is None:
        return f"{value}  ({found['test_images']:,} images, {found['detection'].removeprefix('unknown: ')})"
    return f"{value}  ({low} to {high}, {found['test_images']:,} images)"


def _of_pixels(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "au_pro" not in found:
        return []
    return [("pixels", f"AUROC {found['pixel_auroc']:.3f}, AU-PRO {found['au_pro']:.3f}")]


def _rate(found: dict[str, Any], key: str) -> str:
    value, low, high = (found[name] for name in (key, f"{key}_low", f"{key}_high"))
    return "unknown" if value is None else f"{value:.1%}  ({low:.1%} to {high:.1%})"


def _labels(found: dict[str, Any]) -> tuple[str, str]:
    if found["task"] == "anomaly":
        return "kinds", f"{found['classes']:,}, with good"
    if "classes" in found:
        return "classes", f"{found['classes']:,}"
    return "targets", f"{found['target_min']:g} to {found['target_max']:g}"


def print_summary(found: dict[str, Any]) -> None:
    table = Table(show_header=False, title="Graft", title_justify="left")
    for name, text in rows_of(found):
        table.add_row(name, escape(text))
    for stage, seconds in found["seconds"].items():
        table.add_row(stage, f"{seconds:.1f} s")
    table.add_row("look next", "\n".join([found["report"], *LOOK_NEXT]))
    Console().print(table)
