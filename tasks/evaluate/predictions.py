"""What the stage hands to the report of a task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.heads.calibration import Calibration, two_way
from ..common.scoring.classification import reliability
from .params import EvaluateParams

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bins = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What the chosen candidate said of the N test images.

    Attributes:
        index: `image_id`, `path`, `label` of each.
        classes: the K classes; none where labels are numbers.
        target: what is true, as `FeatureSet.targets` gives it.
        before: (N, K), or (N, 1), as the head gives it.
        output: the same, calibrated.
        calibration: by which it was.
        bins: of the reliability diagram.
    """

    index: pd.DataFrame
    classes: list[str]
    target: npt.NDArray[Any]
    before: Floats
    output: Floats
    calibration: Calibration
    bins: int

    @cached_property
    def reliability(self) -> tuple[Bins, Bins]:
        """After calibration and before."""
        after, before = (reliability(*self.questions(p_NK), self.bins) for p_NK in (self.output, self.before))
        return after, before

    def questions(self, p_NK: Floats) -> tuple[Floats, Ints]:
        """Probabilities and codes: a row an image, or of several classes an image a row for each."""
        if self.target.ndim == 1:
            return p_NK, self.target
        return two_way(p_NK), (self.target > 0).astype(np.int64).ravel()


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
