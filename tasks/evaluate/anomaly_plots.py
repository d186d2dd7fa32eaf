"""The scores of the test images as plots and tables. N images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from ..common.images.contact_sheet import save
from ..common.scoring.ranking import roc
from ..common.scoring.selective import thinned
from .anomaly_metrics import Inspected
from .plots import NAMED

Floats = npt.NDArray[np.float64]

BINS, POINTS = 40, 1000
"""Of the histogram, and of a curve in a table at most."""

FAR = 6.0
"""Above so many times the threshold the histogram is logarithmic."""

GOOD_COLOUR = "#7d8a99"


def score_bins(found: Inspected) -> Floats:
    """The edges of the histogram; the threshold is one of them. float64 (M,)."""
    low, high = float(found.score.min()), float(found.score.max())
    low, high = min(low, found.threshold), max(high, found.threshold)
    if low > 0 and high > FAR * found.threshold:
        step = (np.log(high / low) / BINS) or 1.0
        return np.asarray(found.threshold * np.exp(step * _places(low, found.threshold, high, step, np.log)))
    step = (high - low) / BINS or max(abs(high), 1.0) / BINS
    return np.asarray(found.threshold + step * _places(low, found.threshold, high, step, float))


def _places(low: float, middle: float, high: float, step: float, scale: Callable[[float], float]) -> Floats:
    """Whole numbers of steps from the middle: from below `low` to above `high`."""
    below, above = ((scale(end) - scale(middle)) / step for end in (low, high))
    return np.arange(np.floor(below) - 1, np.ceil(above) + 2)


def scores_plot(found: Inspected, path: Path) -> None:
    """The histogram of the scores of good images and of the kinds of defect, with the threshold."""
    edges, kind_N = score_bins(found).tolist(), found.index["label"].to_numpy()
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    good = found.score[~found.defect]
    axes.hist(good, edges, color=GOOD_COLOUR, alpha=0.9, label=f"good ({len(good):,})")
    if found.kinds:
        shown = found.kinds if len(found.kinds) <= NAMED else [""]
        parts = [found.score[kind_N == kind] if kind else found.score[found.defect] for kind in shown]
        names = [f"{kind or 'defects'} ({len(part):,})" for kind, part in zip(shown, parts, strict=True)]
        axes.hist(parts, edges, stacked=True, histtype="stepfilled", alpha=0.55, label=names)
    axes.axvline(found.threshold, color="black", linewidth=1.5, label=f"threshold {found.threshold:.4g}")
    axes.set(xlabel="anomaly score", ylabel="images", title="Scores of the test images")
    if _far(found):
        axes.set_xscale("log")
    for text in axes.legend(loc="best", fontsize=9).get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _far(found: Inspected) -> bool:
    return bool(found.score.min() > 0 and found.score.max() > FAR * found.threshold > 0)


def detection_plot(found: Inspected, kinds: dict[str, dict[str, Any]], auroc: float, path: Path) -> None:
    """The detection rate of each kind of defect by the false-alarm rate; points are at the threshold.

    Args:
        kinds: as in metrics/evaluate.json.
        auroc: of all defects.
    """
    kind_N, defect_N = found.index["label"].to_numpy(), found.defect
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    false = float(found.anomalous[~defect_N].mean())
    worst = sorted(kinds, key=lambda kind: float(kinds[kind]["auroc"]))[:NAMED]
    for kind in worst if len(kinds) > 1 else []:
        rows = (kind_N == kind) | ~defect_N
        curve = roc(found.score[rows], defect_N[rows])
        (line,) = axes.step(*curve, where="post", linewidth=1.2, label=f"{kind}  {kinds[kind]['auroc']:.3f}")
        axes.plot(false, kinds[kind]["detection_rate"], "o", color=line.get_color(), markersize=5)
    name = next(iter(kinds)) if len(kinds) == 1 else "all defects"
    axes.step(*roc(found.score, defect_N), where="post", color="black", linewidth=2, label=f"{name}  {auroc:.3f}")
    axes.plot(false, float(found.anomalous[defect_N].mean()), "o", color="black", label="at the threshold")
    axes.set(xlabel="false-alarm rate", ylabel="detection rate", title="Detection by false alarms on the test images")
    axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.05))
    for text in axes.legend(loc="lower right", title="AUROC", fontsize=9).get_texts():
        text.set_parse_math(False)
    save(figure, path)


def score_table(found: Inspected) -> pd.DataFrame:
    """The histogram: `score` (the middle of a bin), and how many images are `good` and have a `defect`."""
    edges, defect_N = score_bins(found), found.defect
    good, defect = (np.histogram(found.score[rows], edges)[0] for rows in (~defect_N, defect_N))
    return pd.DataFrame({"score": (edges[1:] + edges[:-1]) / 2, "good": good, "defect": defect})


def detection_table(found: Inspected) -> pd.DataFrame:
    """The ROC curve: `false_alarm_rate`, `detection_rate`; no rows without both good images and defects."""
    if found.defect.all() or not found.defect.any():
        return pd.DataFrame(columns=["false_alarm_rate", "detection_rate"])
    false, right = roc(found.score, found.defect)
    return pd.DataFrame(thinned({"false_alarm_rate": false, "detection_rate": right}, POINTS))
