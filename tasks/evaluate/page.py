"""The report as one HTML page that needs no network; its pictures lie beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from ..common.data.task import MAIN, Task
from ..common.reporting.html import page, table
from .leak_free import audit_text
from .selective import abstention_text, calibration_text

Metrics = dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """What a task's page shows.

    Attributes:
        said: the figures beside the main one, in sentences.
        candidates: a candidate's figures, key -> heading.
        classes: a class's figures.
        pictures: title, text, file.
    """

    said: Callable[[Metrics], str]
    candidates: dict[str, str]
    classes: dict[str, str]
    pictures: tuple[tuple[str, Callable[[Metrics], str], str], ...]


def report_page(metrics: Metrics, confidence: float, further: str = "") -> str:
    """The page's text; `metrics` as in metrics/evaluate.json, `further` as it is at the end."""
    layout, main = _LAYOUTS[metrics["task"]], MAIN[metrics["task"]]
    value, low, high = (main.text(metrics[key]) for key in main.keys)
    of_classes = f" of {metrics['classes']} classes" if "classes" in metrics else ""
    return page(
        "Graft: test report",
        [
            f"<h1>Test {main.title} <strong>{value}</strong></h1>",
            f"<p>{low} to {high} with {confidence:.0%} confidence, on {metrics['images']} test images{of_classes}. "
            f"{layout.said(metrics)} The candidate <b>{escape(metrics['candidate'])}</b> was chosen on validation "
            "images; the test images had no part in it.</p>",
            audit_text(metrics),
            "<h2>Candidates</h2>",
            _figures("candidate", layout.candidates, metrics["candidates"]),
            f"<p>{escape(metrics['decision'])}</p>" if "decision" in metrics else "",
            *(["<h2>Classes</h2>", _figures("class", layout.classes, metrics["per_class"])] if of_classes else []),
            *(
                f'<h2>{title}</h2>{text(metrics)}<img src="{file}" alt="{title}">'
                for title, text, file in layout.pictures
            ),
            *([further] if further else []),
        ],
    )


def _figures(first: str, columns: dict[str, str], rows: dict[str, Metrics]) -> str:
    """A row for each name, a column for each key."""
    return table(
        [first, *columns.values()],
        [[name, *(_figure(values[key]) for key in columns)] for name, values in rows.items()],
    )


def _figure(value: float | None) -> str:
    """Nothing for what cannot be said."""
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _one_class(metrics: Metrics) -> str:
    return f"Log loss {metrics['log_loss']:.3f}, calibration error {metrics['calibration_error']:.3f}."


def _several_classes(metrics: Metrics) -> str:
    return (
        f"With the classes at 0.5 and above: F1 {metrics['f1_macro']:.3f} as the classes' mean and "
        f"{metrics['f1_micro']:.3f} over all, all classes right of {metrics['subset_accuracy']:.1%} of the images, "
        f"{metrics['hamming_loss']:.1%} of all answers wrong. {_one_class(metrics)}"
    )


def _number(metrics: Metrics) -> str:
    spearman = "" if metrics["spearman"] is None else f", rank correlation {metrics['spearman']:.3f}"
    return (
        f"Mean absolute error {metrics['mae']:.4g} ({metrics['mae_low']:.4g} to {metrics['mae_high']:.4g}), root mean "
        f"squared error {metrics['rmse']:.4g}, median absolute error {metrics['median_absolute_error']:.4g}{spearman}."
    )


def _nothing(metrics: Metrics) -> str:
    return ""


_OF_CLASS = {"precision": "precision", "recall": "recall", "f1": "f1", "support": "images"}

_LAYOUTS: dict[Task, _Layout] = {
    "classification": _Layout(
        _one_class,
        {"accuracy": "accuracy", "accuracy_low": "low", "accuracy_high": "high", "log_loss": "log loss"},
        _OF_CLASS,
        (
            ("Confusion", _nothing, "confusion.png"),
            ("Reliability", calibration_text, "reliability.png"),
            ("Errors against coverage", abstention_text, "risk_coverage.png"),
            ("The worst mistakes", _nothing, "mistakes.png"),
        ),
    ),
    "multilabel": _Layout(
        _several_classes,
        {
            "mean_average_precision": "mean average precision",
            "mean_average_precision_low": "low",
            "mean_average_precision_high": "high",
            "f1_macro": "macro f1",
            "f1_micro": "micro f1",
            "log_loss": "log loss",
        },
        {"average_precision": "average precision", **_OF_CLASS},
        (
            ("Precision and recall", _nothing, "precision_recall.png"),
            ("Reliability", calibration_text, "reliability.png"),
            ("The worst mistakes", _nothing, "mistakes.png"),
        ),
    ),
    "regression": _Layout(
        _number,
        {"r2": "R²", "r2_low": "low", "r2_high": "high", "mae": "mean absolute error", "rmse": "RMSE"},
        {},
        (
            ("Predicted against true", _nothing, "scatter.png"),
            ("Errors", _nothing, "residuals.png"),
            ("The largest errors", _nothing, "mistakes.png"),
        ),
    ),
}
