"""The report on a test in which each image has one class. N images, K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.scoring import bootstrap, classification
from .params import EvaluateParams
from .plots import confusion_picture, mistakes_picture, reliability_picture
from .predictions import Floats, Outcome
from .selective import abstention, before_calibration, risk_coverage, risk_coverage_picture


def scores(output_NK: Floats, y_N: npt.NDArray[Any], params: EvaluateParams) -> dict[str, float]:
    """Accuracy, its interval, log loss."""
    correct = output_NK.argmax(axis=1) == y_N
    low, high = bootstrap.bootstrap_interval(correct, params.confidence, params.bootstrap, params.seed)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": classification.log_loss(output_NK, y_N),
    }


def predictions(outcome: Outcome) -> pd.DataFrame:
    """`predicted`, `score`, `p_<class>`; `abstain` where there is a threshold."""
    names, p_NK = np.array(outcome.classes, dtype=object), outcome.output
    table = outcome.index.assign(predicted=names[p_NK.argmax(axis=1)], score=p_NK.max(axis=1))
    if outcome.calibration.threshold is not None:
        table = table.assign(abstain=~outcome.calibration.answers(p_NK))
    return table.assign(**{f"p_{name}": p_NK[:, k] for k, name in enumerate(outcome.classes)})


def further(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Calibration and abstention, and the figures of each class."""
    bins, before = outcome.reliability
    return {
        "calibration_error": classification.expected_calibration_error(bins),
        **before_calibration(outcome.before, outcome.target, outcome.calibration.temperature, before),
        **abstention(predictions, outcome.calibration, params.confidence, params.bootstrap, params.seed),
        "classes": len(outcome.classes),
        "per_class": classification.per_class(_confusion(outcome), outcome.classes),
    }


def draw(
    outcome: Outcome,
    predictions: pd.DataFrame,
    metrics: dict[str, Any],
    params: EvaluateParams,
    raw: Path,
    channels: int,
    folder: Path,
) -> None:
    """confusion.png, reliability.png, risk_coverage.png, mistakes.png."""
    bins, before = outcome.reliability
    wrong = predictions[predictions["predicted"] != predictions["label"]]
    worst = wrong.sort_values(["score", "path"], ascending=[False, True]).head(params.mistakes)
    captions = [f"{one.label}\nas {one.predicted} ({one.score:.0%})" for one in worst.itertuples()]
    confusion_picture(_confusion(outcome), outcome.classes, folder / "confusion.png")
    reliability_picture(bins, metrics["calibration_error"], folder / "reliability.png", before)
    risk_coverage_picture(risk_coverage(predictions), metrics.get("abstention", {}), folder / "risk_coverage.png")
    mistakes_picture(worst.assign(caption=captions), raw, folder / "mistakes.png", channels)


def tabulate(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams, folder: Path) -> None:
    """confusion.csv, reliability.csv and reliability_before.csv, risk_coverage.csv."""
    bins, before = outcome.reliability
    confused = predictions.rename(columns={"label": "actual"})[["actual", "predicted"]]
    confused.to_csv(folder / "confusion.csv", index=False)
    pd.DataFrame(bins).to_csv(folder / "reliability.csv", index=False)
    pd.DataFrame(before).to_csv(folder / "reliability_before.csv", index=False)
    risk_coverage(predictions).to_csv(folder / "risk_coverage.csv", index=False)


def _confusion(outcome: Outcome) -> npt.NDArray[np.int64]:
    return classification.confusion(outcome.output.argmax(axis=1), outcome.target, len(outcome.classes))
