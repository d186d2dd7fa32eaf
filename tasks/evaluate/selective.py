"""What calibrating and abstaining come to on the test images, which had no part in either. N images, K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from ..common.heads.calibration import Calibration
from ..common.scoring import bootstrap, classification
from ..common.scoring.selective import Cuts, thinned

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINTS = 1000
"""Of a risk-coverage curve, at most."""


def before_calibration(head_NK: Floats, y_N: Ints, temperature: float, bins: list[dict[str, Any]]) -> dict[str, float]:
    """What the head's own probabilities would have given; `bins` are theirs."""
    return {
        "temperature": temperature,
        "log_loss_before": classification.log_loss(head_NK, y_N),
        "calibration_error_before": classification.expected_calibration_error(bins),
    }


def abstention(
    predictions: pd.DataFrame, calibration: Calibration, confidence: float, samples: int, seed: int
) -> dict[str, Any]:
    """Threshold, promise, and what came of them, with an interval around the share of wrong answers; empty without a
    threshold. `predictions` as in report/predictions.parquet."""
    if calibration.threshold is None:
        return {}
    answers = ~predictions["abstain"].to_numpy()
    right = (predictions["predicted"] == predictions["label"]).to_numpy()[answers]
    told = {
        "threshold": calibration.threshold,
        "max_error": calibration.max_error,
        "confidence": calibration.confidence,
        "coverage": float(answers.mean()),
        "answered": int(answers.sum()),
    }
    if not len(right):
        return {"abstention": told}
    low, high = bootstrap.bootstrap_interval(right, confidence, samples, seed)
    return {"abstention": {**told, "error": float(1 - right.mean()), "error_low": 1 - high, "error_high": 1 - low}}


def risk_coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """The share of wrong answers for every share of answered images, the surest first: coverage, error, threshold."""
    wrong = predictions["predicted"] != predictions["label"]
    cuts = Cuts.of(predictions["score"].to_numpy(np.float64), wrong.to_numpy())
    return pd.DataFrame(thinned(cuts.table(), POINTS))


def risk_coverage_picture(curve: pd.DataFrame, chosen: dict[str, Any], path: Path) -> None:
    """The curve, and if `chosen` (as `abstention` gives it) is not empty, the threshold and the promise."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve["coverage"], curve["error"], label="test images, the surest first")
    if chosen:
        asked = chosen["max_error"]
        axes.axhline(asked, color="grey", linestyle="--", linewidth=1, label=f"promised: at most {asked:.1%}")
        label = f"threshold {chosen['threshold']:.4g}: answers {chosen['coverage']:.1%}"
        axes.plot([chosen["coverage"]], [chosen.get("error", 0.0)], "o", color="tab:red", label=label)
    top = max(float(curve["error"].max()), chosen.get("max_error", 0.0), 0.01)
    axes.set(xlabel="share of the images that is answered", ylabel="share of the answers that is wrong")
    axes.set(xlim=(0, 1.02), ylim=(-0.02 * top, 1.15 * top), title="Errors against coverage")
    axes.legend(loc="best")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def calibration_text(metrics: dict[str, Any]) -> str:
    """A paragraph of the report."""
    if metrics["temperature"] == 1.0:
        return "<p>The probabilities are the head's own.</p>"
    return (
        f"<p>The head's probabilities are scaled by the temperature {metrics['temperature']:.3f}, which was found on "
        f"validation. Without that the log loss would be {metrics['log_loss_before']:.3f}, the calibration error "
        f"{metrics['calibration_error_before']:.3f}.</p>"
    )


def abstention_text(metrics: dict[str, Any]) -> str:
    """A paragraph of the report; without a threshold, what the picture shows."""
    told = metrics.get("abstention")
    if told is None:
        return (
            "<p>If the model answered only the images of which it is surest, so many of its answers would be wrong. "
            "<code>head.max_error</code> sets a threshold.</p>"
        )
    promised = (
        f"Promised were at most {told['max_error']:.1%} wrong answers, with {told['confidence']:.0%} confidence, by "
        "validation images that the head had not seen."
    )
    came = f"The model answers {told['answered']} test images ({told['coverage']:.1%}), and abstains from the others."
    if "error" not in told:
        return f"<p>{came} {promised}</p>"
    return (
        f"<p>{came} Of the answers {told['error']:.1%} are wrong ({told['error_low']:.1%} to "
        f"{told['error_high']:.1%}). {promised}</p>"
    )
