"""Metrics of anomaly scores of images: how well they rank defects above good images, and what a threshold does.

N images in independent units; a higher score is more anomalous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.task import METRICS
from .intervals import interval, proportion_interval
from .main_metric import metric_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Known = dict[str, float | None]
"""Metric -> value; None where the images do not allow to compute it."""


def ranking_scores(score_N: Floats, defect_N: Bools, unit_N: Ints, confidence: float) -> Known:
    """AUROC and average precision with their intervals, None without both good images and defects."""
    found: Known = {}
    output_N1, target_N = score_N[:, None], defect_N.astype(np.int64)
    for metric in METRICS["anomaly"]:
        value = metric_of(output_N1, target_N, metric.key, "anomaly")
        ends = interval(output_N1, target_N, unit_N, "anomaly", metric=metric.key, confidence=confidence)
        found |= {key: _known(each) for key, each in zip(metric.keys, (value, *ends), strict=True)}
    return found


@dataclass(frozen=True)
class Rate:
    """In how many of some images the score is above the threshold, with an interval of the share; None without images.

    Of independent images the interval is Wilson's; see `intervals.py` for units of several.
    """

    above: int
    images: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, above_M: Bools, unit_M: Ints, confidence: float) -> Rate:
        above, images = int(above_M.sum()), len(above_M)
        if not images:
            return cls(0, 0, None, None, None)
        return cls(above, images, above / images, *proportion_interval(above_M, unit_M, confidence))

    def named(self, key: str) -> Known:
        """The value and the ends of the interval by their names."""
        return {key: self.value, f"{key}_low": self.low, f"{key}_high": self.high}

    def at_most(self, promised: float) -> bool | None:
        """Whether the share may be `promised` or less, by its interval; None without images."""
        return None if self.low is None else self.low <= promised


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
