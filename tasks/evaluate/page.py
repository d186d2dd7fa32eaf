"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.data.task import MAIN
from ..common.reporting.html import render
from .saliency import Saliency

Metrics = Mapping[str, Any]

TEMPLATES = Path(__file__).parent / "templates"

CANDIDATE_COLUMNS = {
    "classification": {"accuracy": "accuracy", "accuracy_low": "low", "accuracy_high": "high", "log_loss": "log loss"},
    "multilabel": {
        "mean_average_precision": "mean average precision",
        "mean_average_precision_low": "low",
        "mean_average_precision_high": "high",
        "f1_macro": "macro F1",
        "f1_micro": "micro F1",
        "log_loss": "log loss",
    },
    "regression": {"r2": "R²", "r2_low": "low", "r2_high": "high", "mae": "mean absolute error", "rmse": "RMSE"},
}
"""Task -> metric of a candidate -> heading."""

CLASS_COLUMNS = {
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "support": "images",
}
"""Metric of a class -> heading; only those that the task has are shown."""


def report_page(
    metrics: Metrics,
    confidence: float,
    plots: Mapping[str, str],
    origin: Mapping[str, str],
    saliency: Saliency | None = None,
) -> str:
    """The text of the page.

    Args:
        metrics: as in metrics/evaluate.json.
        confidence: of the intervals.
        plots: file name -> data URI.
        origin: what the data and features are, see `tasks.common.reporting.origin`.
    """
    per_class: dict[str, Metrics] = metrics.get("per_class", {})
    measured: Metrics = next(iter(per_class.values()), {})
    return render(
        TEMPLATES / f"{metrics['task']}.html",
        title="Graft: test report",
        metrics=metrics,
        main=MAIN[metrics["task"]],
        confidence=confidence,
        plots=plots,
        origin=origin,
        saliency=saliency,
        candidates=_table("candidate", CANDIDATE_COLUMNS[metrics["task"]], metrics["candidates"]),
        classes=_table("class", {key: name for key, name in CLASS_COLUMNS.items() if key in measured}, per_class),
    )


def _table(first: str, columns: Mapping[str, str], rows: Mapping[str, Metrics]) -> tuple[list[str], list[list[str]]]:
    """(headings, rows): a row for each name, a column for each key."""
    cells = [[name, *(_text(values[key]) for key in columns)] for name, values in rows.items()]
    return [first, *columns.values()], cells


def _text(value: float | None) -> str:
    """Empty for an undefined metric."""
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
