"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.data.task import MAIN, METRICS, Task
from ..common.reporting.html import render
from .saliency import Saliency

Metrics = Mapping[str, Any]

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""

TEMPLATES = Path(__file__).parent / "templates"

LISTED = 30
"""Classes on the page at most; report/classes.csv has all."""

LOSSES = {
    "classification": {"log_loss": "log loss"},
    "multilabel": {"f1_micro": "micro F1", "log_loss": "log loss"},
    "regression": {"mae": "mean absolute error", "rmse": "RMSE"},
}
"""Task -> metric of a candidate that is shown beside those of `METRICS` -> heading."""

CLASS_COLUMNS = {
    "images": "images",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "average_precision": "average precision",
    "auroc": "AUROC",
    "threshold": "threshold",
}
"""Metric of a class -> heading. One with ends has a second column, with them."""

UNITS = {
    "group": ("group", "groups"),
    "picture": ("different picture", "different pictures"),
    "group or picture": ("group or single picture", "groups and single pictures"),
}
"""Unit -> one and many of it."""


def report_page(
    metrics: Metrics,
    classes: pd.DataFrame,
    confidence: float,
    plots: Mapping[str, str],
    origin: Mapping[str, str],
    saliency: Saliency | None = None,
) -> str:
    """The text of the page.

    Args:
        metrics: as in metrics/evaluate.json.
        classes: as in report/classes.csv.
        confidence: of the intervals.
        plots: file name -> data URI.
        origin: what the data and features are, see `graft.tasks.common.reporting.origin`.
    """
    task: Task = metrics["task"]
    return render(
        TEMPLATES / f"{task}.html",
        title="Graft: test report",
        metrics=metrics,
        main=MAIN[task],
        units=UNITS[metrics["unit"]],
        confidence=confidence,
        plots=plots,
        origin=origin,
        saliency=saliency,
        measured=_measured(metrics, task),
        candidates=_candidates(metrics["candidates"], task),
        classes=_classes(_worst(classes)),
        classes_left_out=max(0, len(classes) - LISTED),
    )


def _measured(metrics: Metrics, task: Task) -> Table:
    """A row for each metric of the task: its value, its interval, and what a constant answer would score."""
    rows = []
    for metric in METRICS[task]:
        value, low, high = (metric.text(metrics[key]) for key in metric.keys)
        rows.append([metric.title, value, f"{low} to {high}", metric.text(metrics["baseline"][metric.key])])
    return ["metric", "test", "interval", "constant answer"], rows


def _candidates(candidates: Mapping[str, Metrics], task: Task) -> Table:
    main, *others = METRICS[task]
    low, high = main.keys[1:]
    rows = []
    for name, found in candidates.items():
        between = f"{main.text(found[low])} to {main.text(found[high])}"
        measured = [metric.text(found[metric.key]) for metric in others]
        rows.append(
            [name, main.text(found[main.key]), between, *measured, *(_text(found[key]) for key in LOSSES[task])]
        )
    titles = [metric.title for metric in others]
    return ["candidate", main.title, "interval", *titles, *LOSSES[task].values()], rows


def _worst(classes: pd.DataFrame) -> pd.DataFrame:
    """Those with the lowest F1 if they are more than `LISTED`; classes without a test image have none."""
    return classes if len(classes) <= LISTED else classes.sort_values("f1", kind="stable").head(LISTED)


def _classes(classes: pd.DataFrame) -> Table:
    headings, cells = ["class"], [classes["class"].astype(str).tolist()]
    for key, title in CLASS_COLUMNS.items():
        if key not in classes:
            continue
        headings.append(title)
        cells.append([_text(value) for value in classes[key]])
        if f"{key}_low" in classes:
            headings.append("interval")
            cells.append([_between(*ends) for ends in zip(classes[f"{key}_low"], classes[f"{key}_high"])])
    return headings, [list(row) for row in zip(*cells)]


def _between(low: float, high: float) -> str:
    return "" if low != low else f"{low:.2f} to {high:.2f}"


def _text(value: float) -> str:
    """Empty for an undefined metric."""
    return "" if value != value else f"{value}" if isinstance(value, int) else f"{value:.3f}"
