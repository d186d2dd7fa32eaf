"""Paired comparison of two models on the same images: how much better is the second, and how sure is that.

Every test and every bound treats the images of one unit (a group, or the copies of one picture) as one observation.

Non-inferiority is what "not worse" means here: the lower one-sided bound of the paired difference is at least minus a
margin. If it is not, but the second model has not been shown to be worse by the margin either, there are too few images
to tell, which is an outcome of its own (see Walker and Nowacki 2011 for the terms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, up to half a second each, when they are first used

from ..data.task import Metric, Task, metric_named
from .intervals import PRIOR, Estimate, ends, estimate
from .main_metric import metric_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

POWER = 0.8
"""The chance that `Outcome.more` further images would tell, if the models are equal."""

Bounds = tuple[float, float, float, float]
"""(low, high, p_better, p_worse), see `Paired`."""

Says = Literal["better", "not worse", "worse", "too few"]


@dataclass(frozen=True)
class Paired:
    """The second model against the first.

    Attributes:
        metric: what is compared.
        first, second: its values.
        low, high: one-sided bounds of the difference (second - first), each at `significance`.
        p_better, p_worse: one-sided p-values of the test that the second is no better, or no worse, than the first.
        images, units: how many images, and how many independent units of images.
        significance: of the bounds.
    """

    metric: Metric
    first: float
    second: float
    low: float
    high: float
    p_better: float
    p_worse: float
    images: int
    units: int
    significance: float

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True)
class Outcome:
    """What a comparison says about a margin.

    Attributes:
        says: `better` (the lower bound is above 0), `not worse` (it is at least minus the margin), `worse` (the upper
            bound is below minus the margin), or `too few` images to tell.
        more: for `too few`, about how many more images would tell if the models were equal.
    """

    says: Says
    more: int = 0


def compare(
    first: Floats,
    second: Floats,
    target: npt.NDArray[Any],
    unit_N: Ints,
    task: Task,
    *,
    metric: str = "auto",
    significance: float = 0.05,
) -> Paired:
    """Compares the outputs (N, K) of two models for the same N images.

    Accuracy: Tango's score interval (Tango 1998) and the mid-p McNemar test (Fagerland et al. 2013), both with the
    effective number of images where units have several. Any other metric: a t test of the influences of the units.

    Args:
        target: as `FeatureSet.targets` gives it.
        unit_N: the unit of each image, see `data/units.py`.
        metric: a key of `METRICS`, or `auto`.
    """
    named = metric_named(metric, task)
    unit_N = np.unique(unit_N, return_inverse=True)[1].astype(np.int64)
    units = int(unit_N.max()) + 1
    values = metric_of(first, target, named.key, task), metric_of(second, target, named.key, task)
    if named.key == "accuracy":
        change_N = (second.argmax(axis=1) == target).astype(np.int64) - (first.argmax(axis=1) == target)
        bounds = _of_proportions(change_N, unit_N, units, significance)
    else:
        one, other = (estimate(output_NK, target, unit_N, task, named.key) for output_NK in (first, second))
        bounds = (
            _of_values(one, other, significance)
            if task == "reconstruction"
            else _of_estimates(one, other, named.key, significance)
        )
    return Paired(named, *values, *bounds, len(target), units, significance)


def rate_rise(first_M: Bools, second_M: Bools, unit_M: Ints) -> float:
    """One-sided p-value of the test that in M images something is no more frequent by the second model than by the
    first: the mid-p McNemar test, or a t test of units of several images; 1 if it is not more frequent."""
    change_M = second_M.astype(np.int64) - first_M
    if not len(change_M) or change_M.sum() <= 0:
        return 1.0
    code_M = np.unique(unit_M, return_inverse=True)[1].astype(np.int64)
    return _of_proportions(change_M, code_M, int(code_M.max()) + 1, 0.05)[2]


def outcome(found: Paired, margin: float) -> Outcome:
    """Whether the second model is not worse than the first by more than `margin` (a share, or the metric's unit)."""
    if found.low > 0:
        return Outcome("better")
    if found.low >= -margin:
        return Outcome("not worse")
    if found.high < -margin:
        return Outcome("worse")
    return Outcome("too few", more_images(found, margin))


def more_images(found: Paired, margin: float) -> int:
    """About how many more images would show that equal models differ by less than `margin`, with `POWER`; 0 for a
    margin of 0, with which no number would."""
    if margin <= 0:
        return 0
    z = -float(scipy.special.ndtri(found.significance))
    error = max(found.difference - found.low, 0.0) / z
    needed = found.images * (error * (z + float(scipy.special.ndtri(POWER))) / margin) ** 2
    return max(1, int(np.ceil(needed - found.images)))


def holm(p_values: Mapping[str, float], significance: float) -> tuple[str, ...]:
    """The tests that stay significant by Holm's method (1979): the smallest p must reach significance / tests, the next
    significance / (tests - 1), and so on."""
    left = len(p_values)
    kept: list[str] = []
    for name in sorted(p_values, key=lambda name: p_values[name]):
        if p_values[name] > significance / left:
            break
        kept.append(name)
        left -= 1
    return tuple(kept)


def mid_p(won: float, lost: float) -> float:
    """One-sided: the upper tail of Bin(won + lost, 1/2), with half of the probability of `won` itself."""
    won, lost = round(won), round(lost)
    n = won + lost
    if n == 0:
        return 1.0
    below, at_most = (scipy.special.bdtr(k, n, 0.5) if k >= 0 else 0.0 for k in (won - 1, won))
    return float(1 - at_most + (at_most - below) / 2)


def _of_proportions(change_N: Ints, unit_N: Ints, units: int, significance: float) -> Bounds:
    """(low, high, p_better, p_worse) of the mean of changes in {-1, 0, 1}."""
    n = len(change_N)
    won, lost = int((change_N > 0).sum()), int((change_N < 0).sum())
    if units == n:
        z = -float(scipy.special.ndtri(significance))
        return (
            tango(won, lost, n, z, lower=True),
            tango(won, lost, n, z, lower=False),
            mid_p(won, lost),
            mid_p(lost, won),
        )
    effect = design_effect(change_N.astype(np.float64), unit_N, units)
    z = -float(scipy.special.stdtrit(max(units - 1, 1), significance))
    scaled = won / effect, lost / effect, n / effect
    low, high = (tango(*scaled, z, lower=lower) for lower in (True, False))
    return low, high, *_of_units(change_N, unit_N, units)


def _of_units(change_N: Ints, unit_N: Ints, units: int) -> tuple[float, float]:
    """(p_better, p_worse) of a t test of the sums of the units, whose variance is that under no difference."""
    sum_U = np.bincount(unit_N, weights=change_N, minlength=units)
    spread = float(np.sqrt((sum_U**2).sum()))
    if spread == 0 or units < 2:
        return 1.0, 1.0
    # Under no difference the signs of the units' sums are exchangeable: their sum has the variance sum(sum_U ** 2).
    t = float(sum_U.sum()) / spread
    t = t * np.sqrt((units - 1) / max(units - t * t, 1e-12))  # as in a t test, from the uncentred variance
    least = 0.5 ** int(np.count_nonzero(sum_U))  # the exact test of the signs gives no less, and few units alike would
    return max(float(scipy.special.stdtr(units - 1, -t)), least), max(float(scipy.special.stdtr(units - 1, t)), least)


def design_effect(value_N: Floats, unit_N: Ints, units: int) -> float:
    """How many times larger the variance of the mean is with these units than with independent images, at least 1; for
    a value that never varies, the size of the units that an image is in on average (the largest that it can be)."""
    n, size_U = len(value_N), np.bincount(unit_N, minlength=units)
    apart_N = value_N - value_N.mean()
    alone = float((apart_N**2).sum())
    if alone == 0:
        return float((size_U**2).sum() / n)
    together = float((np.bincount(unit_N, weights=apart_N, minlength=units) ** 2).sum()) * units / max(units - 1, 1)
    return max(1.0, together / alone)


def tango(won: float, lost: float, n: float, z: float, *, lower: bool) -> float:
    """The lower or upper bound of (won - lost) / n by Tango's score statistic (1998), at the quantile `z`."""
    low, high = (-1.0, (won - lost) / n) if lower else ((won - lost) / n, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        inside = abs(_score(won, lost, n, middle)) < z
        if lower:
            low, high = (low, middle) if inside else (middle, high)
        else:
            low, high = (middle, high) if inside else (low, middle)
    return (low + high) / 2


def _score(won: float, lost: float, n: float, difference: float) -> float:
    """Tango's statistic for the hypothesis that the difference is `difference`."""
    b = (2 * n - won + lost) * difference - won - lost
    c = -lost * difference * (1 - difference)  # the share q of losses solves 2n q^2 + b q + c = 0
    q = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    gap = won - lost - n * difference
    if variance <= 0:
        return 0.0 if gap == 0 else float(np.copysign(np.inf, gap))
    return float(gap / np.sqrt(variance))


def _gap(first: Estimate, second: Estimate) -> Estimate:
    return Estimate(second.value - first.value, second.moved_U - first.moved_U, first.units, first.images)


def _of_values(first: Estimate, second: Estimate, significance: float) -> Bounds:
    """(low, high, p_better, p_worse) of metrics whose images each have a value: a t test of the influences of the
    units."""
    gap = _gap(first, second)
    reach = gap.quantile(1 - 2 * significance) * gap.variance**0.5
    return gap.value - reach, gap.value + reach, _upper_p(gap.value, gap), _upper_p(-gap.value, gap)


def _of_estimates(first: Estimate, second: Estimate, metric: str, significance: float) -> Bounds:
    """(low, high, p_better, p_worse): a t test of the influences of the units on the difference; the bounds combine the
    intervals of both values by how much these vary together (MOVER: Zou and Donner 2008, Newcombe 1998), so that two
    perfect scores on few images have bounds too."""
    gap = _gap(first, second)
    together = float((first.moved_U * second.moved_U).sum()) / max(_spread(first) * _spread(second), 1e-300)
    (low_1, high_1), (low_2, high_2) = (ends(each, metric, 1 - 2 * significance) for each in (first, second))
    below = _combined(second.value - low_2, high_1 - first.value, together)
    above = _combined(high_2 - second.value, first.value - low_1, together)
    return gap.value - below, gap.value + above, _upper_p(gap.value, gap), _upper_p(-gap.value, gap)


def _spread(found: Estimate) -> float:
    """The standard deviation by the influences, with what the interval assumes before there are errors."""
    return float((found.moved_U**2).sum() + PRIOR / max(found.images * found.units, 1.0)) ** 0.5


def _combined(own: float, others: float, together: float) -> float:
    return float(max(own**2 - 2 * together * own * others + others**2, 0.0) ** 0.5)


def _upper_p(gain: float, gap: Estimate) -> float:
    """One-sided: that a gain of 0 looks as large as this."""
    if gap.variance == 0:
        return 1.0
    return float(scipy.special.stdtr(len(gap.moved_U) - 1, -gain / gap.variance**0.5))
