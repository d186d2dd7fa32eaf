"""The held-out images of a study. M images, K classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.data.task import Metric, Task, metric_named
from ..common.scoring.intervals import interval
from ..common.scoring.main_metric import metric_of
from ..common.scoring.paired import Paired, compare

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """The M images that all models of a study are compared on, and by what.

    Attributes:
        target: (M,) or (M, K), as `FeatureSet.targets` gives it.
        unit_M: the independent unit of each image.
        metric: a key of `METRICS`.
        confidence: of intervals and bounds.
        margin: the difference that would not matter, in units of the metric.
    """

    target: npt.NDArray[Any]
    unit_M: Ints
    task: Task
    metric: str
    confidence: float
    margin: float

    @property
    def named(self) -> Metric:
        return metric_named(self.metric, self.task)

    @property
    def units(self) -> int:
        """The number of independent units."""
        return len(np.unique(self.unit_M))

    def score(self, output_MK: Floats) -> tuple[float, float, float]:
        """The metric with both ends of its interval."""
        low, high = interval(
            output_MK, self.target, self.unit_M, self.task, metric=self.metric, confidence=self.confidence
        )
        return metric_of(output_MK, self.target, self.metric, self.task), low, high

    def compare(self, first: Floats, second: Floats, significance: float) -> Paired:
        return compare(
            first, second, self.target, self.unit_M, self.task, metric=self.metric, significance=significance
        )
