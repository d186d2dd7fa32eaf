"""The predictions on the test images, which the report of each task is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.heads.calibration import Calibration, two_way
from ..common.images.reading import Reading
from ..common.scoring.classification import reliability
from .params import EvaluateParams

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bins = list[dict[str, Any]]


@dataclass(frozen=True)
class Predictions:
    """The output of the chosen candidate for the N test images.

    Attributes:
        index: `image_id`, `path`, `label` of each image.
        classes: the K classes; none for regression.
        target: the true labels, as `FeatureSet.targets` gives them.
        before: (N, K), or (N, 1) for regression, before calibration.
        output: the same after calibration.
        calibration: what was applied to `before`.
        bins: number of bins of the reliability diagram.
        raw: the folder of the images.
        reading: how the images are read.
        units: the unit of each image, int64 (N,), see `data/units.py`.
    """

    index: pd.DataFrame
    classes: list[str]
    target: npt.NDArray[Any]
    before: Floats
    output: Floats
    calibration: Calibration
    bins: int
    raw: Path
    reading: Reading
    units: Ints

    @cached_property
    def reliability(self) -> tuple[Bins, Bins]:
        """After calibration and before."""
        after, before = (reliability(*self.questions(p_NK), self.bins) for p_NK in (self.output, self.before))
        return after, before

    @cached_property
    def decided(self) -> Floats:
        """`output` as the decision weighs it, see `Calibration.weighed`."""
        return self.calibration.weighed(self.output)

    def tabulate_reliability(self, to: Path) -> None:
        """reliability.csv, reliability_before.csv."""
        for name, bins in zip(("reliability", "reliability_before"), self.reliability, strict=True):
            pd.DataFrame(bins).to_csv(to / f"{name}.csv", index=False)

    def questions(self, p_NK: Floats) -> tuple[Floats, Ints]:
        """Probabilities and codes: one row per image, or with several classes one per image and class."""
        if self.target.ndim == 1:
            return p_NK, self.target
        return two_way(p_NK), (self.target > 0).astype(np.int64).ravel()


class Report(Protocol):
    """A module that reports on the test of one task."""

    def scores(
        self, output: Floats, decided: Floats, target: npt.NDArray[Any], units: Ints, confidence: float
    ) -> dict[str, Any]:
        """The metrics of any candidate; those of `METRICS` with intervals.

        Args:
            decided: `output` as the decision weighs it.
        """

    def prediction_table(self, predicted: Predictions) -> pd.DataFrame:
        """The content of report/predictions.parquet."""

    def further(self, predicted: Predictions, table: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
        """The metrics of the chosen candidate only."""

    def class_table(self, predicted: Predictions, confidence: float) -> pd.DataFrame:
        """The content of report/classes.csv: a row for each class; none for regression."""

    def draw(
        self,
        predicted: Predictions,
        table: pd.DataFrame,
        classes: pd.DataFrame,
        metrics: dict[str, Any],
        most: int,
        to: Path,
    ) -> None:
        """The plots of the report, with at most `most` misclassified examples."""

    def tabulate(self, predicted: Predictions, table: pd.DataFrame, to: Path) -> None:
        """The tables for `dvc plots show`."""
