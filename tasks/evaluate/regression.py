"""The report on a test of regression. N images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.scoring import regression
from ..common.scoring.intervals import error_intervals, interval
from .params import EvaluateParams
from .plots import misclassified_plot, residuals_plot, scatter_plot
from .predictions import Floats, Ints, Predictions
from .selective import coverage


def scores(
    output_N1: Floats, decided_N1: Floats, y_N: npt.NDArray[Any], units: Ints, confidence: float
) -> dict[str, Any]:
    """See `regression_scores`; R², MAE and RMSE with their intervals."""
    predicted_N = output_N1[:, 0]
    found = {
        "r2": interval(output_N1, y_N, units, "regression", confidence=confidence),
        **error_intervals(predicted_N, y_N, units, confidence),
    }
    ends = {f"{name}_{end}": value for name, both in found.items() for end, value in zip(("low", "high"), both)}
    return {**regression.regression_scores(predicted_N, y_N), **ends}


def prediction_table(predicted: Predictions) -> pd.DataFrame:
    """`label` and `predicted` as numbers, and `error`, predicted minus true; with intervals `low` and `high`."""
    predicted_N = predicted.output[:, 0]
    table = predicted.index.assign(label=predicted.target, predicted=predicted_N, error=predicted_N - predicted.target)
    margin = predicted.calibration.margin
    return table if margin is None else table.assign(low=predicted_N - margin, high=predicted_N + margin)


def further(predicted: Predictions, table: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """With intervals of the predictions: how often they contain the number, and their `margin`."""
    calibration = predicted.calibration
    if calibration.margin is None:
        return {}
    inside_N = np.abs(predicted.output[:, 0] - predicted.target) <= calibration.margin
    found = coverage(inside_N, calibration.interval_confidence, predicted.units, params.confidence)
    return {"prediction_intervals": {**found, "margin": calibration.margin}}


def class_table(predicted: Predictions, confidence: float) -> pd.DataFrame:
    """No rows."""
    return pd.DataFrame(columns=["class"])


def draw(
    predicted: Predictions,
    table: pd.DataFrame,
    classes: pd.DataFrame,
    metrics: dict[str, Any],
    most: int,
    to: Path,
) -> None:
    """scatter.png, residuals.png, misclassified.png."""
    sized = table.assign(size=table["error"].abs())
    worst = sized.sort_values(["size", "path"], ascending=[False, True]).head(most)
    captions = [f"{one.label:.4g}\nas {one.predicted:.4g} ({one.error:+.2g})" for one in worst.itertuples()]
    scatter_plot(predicted.target, predicted.output[:, 0], to / "scatter.png")
    residuals_plot(table["error"].to_numpy(), to / "residuals.png")
    title = "Largest errors on the test images"
    misclassified_plot(
        worst.assign(caption=captions), predicted.raw, to / "misclassified.png", predicted.reading, title
    )


def tabulate(predicted: Predictions, table: pd.DataFrame, to: Path) -> None:
    """predicted.csv."""
    pairs = table.rename(columns={"label": "actual"})[["actual", "predicted", "error"]]
    pairs.to_csv(to / "predicted.csv", index=False)
