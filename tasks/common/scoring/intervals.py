"""Confidence intervals of the metrics, over independent units (a group of images, or the copies of one picture)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.task import Task, metric_named
from .main_metric import metrics_of
from .paired import design_effect
from .resampling import Floats, Ints, percentile_ends, statistics


def interval(
    output_NK: Floats,
    target: npt.NDArray[Any],
    unit_N: Ints,
    task: Task,
    *,
    metric: str = "auto",
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Of a metric of `task.METRICS`: for accuracy see `proportion_interval`, otherwise a bootstrap of the units.

    Args:
        unit_N: the unit of each image, see `data/units.py`.
        samples: of the bootstrap.
    """
    named = metric_named(metric, task)
    unit_N = np.unique(unit_N, return_inverse=True)[1].astype(np.int64)
    if named.key == "accuracy":
        return proportion_interval(output_NK.argmax(axis=1) == target, unit_N, confidence)
    values_B = statistics(lambda times: metrics_of(output_NK, target, named.key, task, times), unit_N, samples, seed)
    return percentile_ends(values_B, confidence, int(unit_N.max()) + 1)


def proportion_interval(right_N: npt.NDArray[np.bool_], unit_N: Ints, confidence: float) -> tuple[float, float]:
    """Of the mean of zeros and ones: Wilson's interval, and with units of several images Wilson's with the effective
    number of images and Student's t (Korn and Graubard 1998; Franco et al. 2019)."""
    from scipy.special import stdtrit

    unit_N = np.unique(unit_N, return_inverse=True)[1].astype(np.int64)
    n, units, mean = len(right_N), int(unit_N.max()) + 1, float(right_N.mean())
    if units == n:
        return wilson(n, mean, confidence)
    effect = design_effect(right_N.astype(np.float64), unit_N, units)
    z = float(stdtrit(max(units - 1, 1), 0.5 + confidence / 2))
    return _wilson(n / effect, mean, z)


def wilson(n: float, mean: float, confidence: float) -> tuple[float, float]:
    """Interval of a share `mean` of n (Wilson 1927)."""
    return _wilson(n, mean, NormalDist().inv_cdf(0.5 + confidence / 2))


def _wilson(n: float, mean: float, z: float) -> tuple[float, float]:
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)
