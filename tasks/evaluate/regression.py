"""The report on a test in which each image has a number. N images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from ..common.scoring import regression
from .params import EvaluateParams
from .plots import mistakes_picture, residuals_picture, scatter_picture
from .predictions import Floats, Outcome


def scores(output_N1: Floats, y_N: npt.NDArray[Any], params: EvaluateParams) -> dict[str, float | None]:
    """See `regression_scores`; R2, mean absolute and root mean squared error with their intervals."""
    predicted_N = output_N1[:, 0]
    intervals = regression.regression_intervals(predicted_N, y_N, params.confidence, params.bootstrap, params.seed)
    ends = {f"{name}_{end}": value for name, both in intervals.items() for end, value in zip(("low", "high"), both)}
    return {**regression.regression_scores(predicted_N, y_N), **ends}


def predictions(outcome: Outcome) -> pd.DataFrame:
    """`label` and `predicted` as numbers, and `error`, by how much the latter is too large."""
    predicted_N = outcome.output[:, 0]
    return outcome.index.assign(label=outcome.target, predicted=predicted_N, error=predicted_N - outcome.target)


def further(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Nothing: the candidates' figures are all there are."""
    return {}


def draw(
    outcome: Outcome,
    predictions: pd.DataFrame,
    metrics: dict[str, Any],
    params: EvaluateParams,
    raw: Path,
    channels: int,
    folder: Path,
) -> None:
    """scatter.png, residuals.png, mistakes.png."""
    table = predictions.assign(size=predictions["error"].abs())
    worst = table.sort_values(["size", "path"], ascending=[False, True]).head(params.mistakes)
    captions = [f"{one.label:.4g}\nas {one.predicted:.4g} ({one.error:+.2g})" for one in worst.itertuples()]
    scatter_picture(outcome.target, outcome.output[:, 0], folder / "scatter.png")
    residuals_picture(predictions["error"].to_numpy(), folder / "residuals.png")
    title = "The largest errors on the test images"
    mistakes_picture(worst.assign(caption=captions), raw, folder / "mistakes.png", channels, title)


def tabulate(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams, folder: Path) -> None:
    """predicted.csv."""
    pairs = predictions.rename(columns={"label": "actual"})[["actual", "predicted", "error"]]
    pairs.to_csv(folder / "predicted.csv", index=False)
