"""Paired tests of two models on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from ..data.task import Task
from .main_metric import main_metrics

RESAMPLES = 2000
"""Resamples of the paired bootstrap."""

BLOCK = 100
"""Resamples at a time."""

Floats = npt.NDArray[np.float64]


def paired_p(first: Floats, second: Floats, target: npt.NDArray[Any], task: Task, seed: int) -> float:
    """One-sided p-value: how likely a second model that is no better than the first looks this much better by chance.

    For classification the mid-p McNemar test (Fagerland et al. 2013), otherwise a paired bootstrap of the main metric.

    Args:
        first, second: outputs (N, K) of the N images.
    """
    if task == "classification":
        first_right, second_right = first.argmax(axis=1) == target, second.argmax(axis=1) == target
        return mid_p(int(np.sum(second_right & ~first_right)), int(np.sum(first_right & ~second_right)))
    rng = np.random.default_rng(seed)
    count, worse = len(target), 0
    for _ in range(RESAMPLES // BLOCK):
        times_BN = rng.multinomial(count, np.full(count, 1 / count), size=BLOCK).astype(np.float64)
        gain_B = main_metrics(second, target, task, times_BN) - main_metrics(first, target, task, times_BN)
        worse += int(np.count_nonzero(~(gain_B > 0)))
    return (worse + 1) / (RESAMPLES + 1)


def mid_p(won: int, lost: int) -> float:
    """One-sided: the upper tail of Bin(won + lost, 1/2), with half of the probability of `won` itself."""
    n = won + lost
    if n == 0:
        return 1.0
    below, at_most = (bdtr(k, n, 0.5) if k >= 0 else 0.0 for k in (won - 1, won))
    return float(1 - at_most + (at_most - below) / 2)
