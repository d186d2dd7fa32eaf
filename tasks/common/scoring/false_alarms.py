"""The threshold above which a score is anomalous, from good images alone. N held-out good images in U units.

At a threshold that e of the N images exceed, a new good image exceeds it more often than a rate r only with probability
P(Bin(N, r) <= e), whatever the distribution of scores (a tolerance limit, Wilks 1941). So the lowest threshold for
which that is at most 1 - confidence bounds the false alarms; as all of these are quantiles of one sample, none is
chosen among several that failed, and no share of the confidence is spent. It takes 45 independent images to bound 5 %
with 90 % confidence. Images of one unit count as in `selective.py`.

With fewer units, the conformal threshold keeps the rate in expectation, from 19 units on for 5 %; see `conformal.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .conformal import Floats, Ints, least_units, nonconformity_limit
from .selective import at_most

Guarantee = Literal["bound", "expected", "none"]
"""`bound`: the rate is not exceeded, with the confidence; `expected`: it is the mean over all samples of good images;
`none`: there are too few."""


@dataclass(frozen=True)
class Limit:
    """Attributes:
    threshold: a higher score is anomalous.
    guarantee: what is known of its false alarms.
    """

    threshold: float
    guarantee: Guarantee


def false_alarm_limit(score_N: Floats, unit_N: Ints, max_rate: float, confidence: float) -> Limit:
    """The lowest threshold that keeps `max_rate` with the strongest guarantee that there is; without any, the largest
    score.

    Args:
        score_N: of good images, from heads that were not fitted on them.
        unit_N: codes of the independent units.
    """
    largest = float(score_N.max())
    bound = _bound(score_N, unit_N, max_rate, confidence)
    if bound is not None:
        return Limit(bound, "bound")
    expected = nonconformity_limit(score_N, unit_N, 1 - max_rate)
    return Limit(expected, "expected") if math.isfinite(expected) else Limit(largest, "none")


def least_images(max_rate: float, confidence: float) -> tuple[int, int]:
    """How many independent good images there must be for `bound` and for `expected`: 45 and 19 for 5 % with 90 %."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_rate) - 1e-9), least_units(1 - max_rate)


def _bound(score_N: Floats, unit_N: Ints, max_rate: float, confidence: float) -> float | None:
    n = len(score_N)
    effective = n**2 / float((np.unique(unit_N, return_counts=True)[1] ** 2).sum())
    levels = np.unique(score_N)
    above = n - np.searchsorted(np.sort(score_N), levels, side="right")
    holds = at_most(above * effective / n, np.full(len(levels), effective), max_rate) <= 1 - confidence
    return float(levels[holds.argmax()]) if holds.any() else None
