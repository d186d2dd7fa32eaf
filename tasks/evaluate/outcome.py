"""What the stage hands to the report of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.calibration import Calibration
from .params import EvaluateParams

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What the chosen candidate said of the N test images.

    Attributes:
        index: `image_id`, `path`, `label` of each.
        classes: the K classes; none where labels are numbers.
        target: what is true, as `Pack.targets` gives it.
        before: (N, K), or (N, 1), as the head gives it.
        output: the same, calibrated.
        calibration: by which it was.
    """

    index: pd.DataFrame
    classes: list[str]
    target: npt.NDArray[Any]
    before: Floats
    output: Floats
    calibration: Calibration


class Report(Protocol):
    """A module that reports on the test of one task."""

    def scores(self, output: Floats, target: npt.NDArray[Any], params: EvaluateParams) -> dict[str, Any]:
        """The figures of any candidate, intervals included."""

    def predictions(self, outcome: Outcome) -> pd.DataFrame:
        """Of report/predictions.parquet."""

    def further(self, outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
        """The figures of the chosen candidate alone."""

    def draw(
        self,
        outcome: Outcome,
        predictions: pd.DataFrame,
        metrics: dict[str, Any],
        params: EvaluateParams,
        raw: Path,
        channels: int,
        folder: Path,
    ) -> None:
        """The report's pictures."""

    def tabulate(self, outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams, folder: Path) -> None:
        """The tables from which `dvc plots show` draws."""
