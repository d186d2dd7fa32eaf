"""The report on anomaly detection as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..common.data.task import METRICS
from ..common.reporting.html import render
from .heat_examples import TITLES
from .page import TEMPLATES, UNITS, Metrics, Table


def anomaly_page(
    metrics: Metrics, confidence: float, plots: Mapping[str, str], origin: Mapping[str, str], shown: Mapping[str, int]
) -> str:
    """The text of the page.

    Args:
        metrics: as in metrics/evaluate.json.
        confidence: of the intervals.
        plots: file name -> data URI.
        origin: what the data and features are, see `graft.tasks.common.reporting.origin`.
        shown: part of the report -> how many images it could show, see `heat_examples.TITLES`.
    """
    return render(
        TEMPLATES / "anomaly.html",
        title="Graft: test report",
        metrics=metrics,
        units=UNITS[metrics["unit"]],
        confidence=confidence,
        plots=plots,
        origin=origin,
        measured=_measured(metrics),
        kinds=_kinds(metrics["kinds"]),
        parts=[(name, title, shown[name]) for name, title in TITLES.items() if f"{name}.png" in plots],
    )


def _measured(metrics: Metrics) -> Table:
    rows = []
    for metric in METRICS["anomaly"]:
        ends, constant = _between(metrics, metric.key, percent=metric.percent), metrics["baseline"][metric.key]
        rows.append([metric.title, metric.text(metrics[metric.key]), ends, metric.text(constant)])
    for key, title, of in (
        ("detection_rate", "detection rate", "defect_images"),
        ("false_alarm_rate", "false-alarm rate", "good_images"),
    ):
        value = "unknown" if metrics[key] is None else f"{metrics[key]:.1%} of {metrics[of]:,}"
        rows.append([title, value, _between(metrics, key, percent=True), ""])
    for key, title in (("pixel_auroc", "pixel AUROC"), ("au_pro", "AU-PRO")):
        if key in metrics:
            rows.append([title, f"{metrics[key]:.3f}", "", f"{0.5 if key == 'pixel_auroc' else 0.15:.3f}"])
    return ["metric", "test", "interval", "constant answer"], rows


def _kinds(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for kind, found in sorted(kinds.items(), key=lambda one: (one[1]["detection_rate"], one[0])):
        auroc = "unknown" if found["auroc"] is None else f"{found['auroc']:.3f}"
        rows.append(
            [
                kind,
                f"{found['detected']:,} of {found['images']:,}",
                f"{found['detection_rate']:.1%}",
                _between(found, "detection_rate", percent=True),
                auroc,
                _between(found, "auroc", percent=False),
            ]
        )
    return ["kind of defect", "detected", "detection rate", "interval", "AUROC", "interval"], rows


def _between(found: Metrics, key: str, *, percent: bool) -> str:
    low, high = found[f"{key}_low"], found[f"{key}_high"]
    if low is None:
        return ""
    return f"{low:.1%} to {high:.1%}" if percent else f"{low:.3f} to {high:.3f}"
