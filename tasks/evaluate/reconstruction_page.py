"""The report on decoded images as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..common.data.task import METRICS, Metric
from ..common.reporting.html import render
from .page import TEMPLATES, UNITS, Metrics, Table

NAMES = {
    "pretrained": "the decoder on pre-trained weights",
    "untrained": "the same on random weights",
    "pixel_threshold": "a threshold of grey values",
}
"""What is compared -> its name on the page."""


def reconstruction_page(
    metrics: Metrics, confidence: float, plots: Mapping[str, str], origin: Mapping[str, str]
) -> str:
    """The text of the page.

    Args:
        metrics: as in metrics/evaluate.json.
        confidence: of the intervals.
        plots: file name -> data URI.
        origin: what the data and features are, see `graft.tasks.common.reporting.origin`.
    """
    measured = [one for one in METRICS["reconstruction"] if one.key in metrics]
    return render(
        TEMPLATES / "reconstruction.html",
        title="Graft: test report",
        metrics=metrics,
        main=measured[0],
        units=UNITS[metrics["unit"]],
        confidence=confidence,
        plots=plots,
        origin=origin,
        compared=_compared(metrics, measured),
    )


def _compared(metrics: Metrics, measured: list[Metric]) -> Table:
    found: dict[str, Any] = dict(metrics["candidates"])
    if "pixel_threshold" in metrics:
        found["pixel_threshold"] = metrics["pixel_threshold"]
    rows = []
    for name, values in found.items():
        cells = [NAMES[name]]
        for metric in measured:
            value, low, high = (metric.text(values[key]) for key in metric.keys)
            cells += [value, f"{low} to {high}"]
        rows.append(cells)
    return ["", *(heading for metric in measured for heading in (metric.title, "interval"))], rows
