"""Calibration and abstention on the test images, which were used for neither. N images, K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from ..common.heads.calibration import Calibration
from ..common.scoring import classification
from ..common.scoring.intervals import proportion_interval
from ..common.scoring.selective import Cuts, thinned
from .predictions import Predictions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINTS = 1000
"""Maximum number of points of a risk-coverage curve."""


def before_calibration(
    head_NK: Floats, y_N: Ints, calibration: Calibration, bins: list[dict[str, Any]]
) -> dict[str, Any]:
    """The metrics of the probabilities before calibration, and what it does; `bins` are theirs."""
    return {
        "temperature": calibration.temperature,
        "calibration": _in_words(calibration),
        "log_loss_before": classification.log_loss(head_NK, y_N),
        "calibration_error_before": classification.expected_calibration_error(bins),
    }


def _in_words(calibration: Calibration) -> str:
    """Empty if the probabilities are those of the head."""
    if calibration.temperatures is not None:
        return "a temperature per class"
    temperature = "" if calibration.temperature == 1.0 else f"the temperature {calibration.temperature:.3f}"
    bias = "" if calibration.bias is None else "a bias per class"
    return " and ".join(part for part in (temperature, bias) if part)


def abstention(table: pd.DataFrame, calibration: Calibration, units: Ints, confidence: float) -> dict[str, Any]:
    """Threshold, guarantee, coverage and the error rate among the answers with its interval; empty without a threshold.

    Args:
        table: as in report/predictions.parquet.
        units: the unit of each image.
    """
    if calibration.threshold is None:
        return {}
    answers = ~table["abstain"].to_numpy()
    right = (table["predicted"] == table["label"]).to_numpy()[answers]
    found = {
        "threshold": calibration.threshold,
        "max_error": calibration.max_error,
        "confidence": calibration.confidence,
        "coverage": float(answers.mean()),
        "answered": int(answers.sum()),
    }
    if not len(right):
        return {"abstention": found}
    low, high = proportion_interval(right, units[answers], confidence)
    return {"abstention": {**found, "error": float(1 - right.mean()), "error_low": 1 - high, "error_high": 1 - low}}


def prediction_sets(predicted: Predictions, confidence: float) -> dict[str, Any]:
    """How often the prediction set has the true class, with its interval, and how many classes it has on average; empty
    without sets."""
    calibration = predicted.calibration
    if calibration.set_least is None:
        return {}
    set_NK = calibration.sets(predicted.output)
    has_N = set_NK[np.arange(len(set_NK)), predicted.target]
    found = coverage(has_N, calibration.set_confidence, predicted.units, confidence)
    return {"prediction_sets": {**found, "classes": float(set_NK.sum(axis=1).mean())}}


def coverage(inside_N: npt.NDArray[np.bool_], promised: float | None, units: Ints, confidence: float) -> dict[str, Any]:
    """How often the truth is in a set or an interval, against the `confidence` that it was made with."""
    low, high = proportion_interval(inside_N, units, confidence)
    return {
        "confidence": promised,
        "coverage": float(inside_N.mean()),
        "coverage_low": low,
        "coverage_high": high,
    }


def risk_coverage(table: pd.DataFrame) -> pd.DataFrame:
    """The error rate at every coverage, the most confident images first: `coverage`, `error`, `threshold`."""
    wrong = table["predicted"] != table["label"]
    cuts = Cuts.of(table["score"].to_numpy(np.float64), wrong.to_numpy())
    return pd.DataFrame(thinned(cuts.table(), POINTS))


def risk_coverage_plot(curve: pd.DataFrame, chosen: dict[str, Any], path: Path) -> None:
    """The curve; if `chosen` (from `abstention`) is not empty, also the threshold and the guarantee."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve["coverage"], curve["error"], label="test images, the most confident first")
    if chosen:
        asked = chosen["max_error"]
        axes.axhline(asked, color="grey", linestyle="--", linewidth=1, label=f"guaranteed: at most {asked:.1%}")
        label = f"threshold {chosen['threshold']:.4g}: coverage {chosen['coverage']:.1%}"
        axes.plot([chosen["coverage"]], [chosen.get("error", 0.0)], "o", color="tab:red", label=label)
    top = max(float(curve["error"].max()), chosen.get("max_error", 0.0), 0.01)
    axes.set(xlabel="coverage: share of images answered", ylabel="error rate among the answers")
    axes.set(xlim=(0, 1.02), ylim=(-0.02 * top, 1.15 * top), title="Error rate against coverage")
    axes.legend(loc="best")
    figure.savefig(path, dpi=110, metadata={"Software": None})
