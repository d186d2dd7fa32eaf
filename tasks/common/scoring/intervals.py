"""Confidence intervals of the metrics, over independent units (a group of images, or the copies of one picture).

One method for every metric between 0 and 1: Wilson's interval (1927) with the effective number of images, which is the
number of independent images whose mean would vary as much (Korn and Graubard 1998; Franco et al. 2019). How much the
metric varies follows from the influence of each unit (see `influence.py`). Nothing is drawn at random.

N images of U units, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.task import Task, metric_named
from . import images, influence
from .influence import Bools, Floats, Ints, Moved
from .regression import r2

PRIOR = 0.5
"""How many errors the assumption counts for that all images are equally informative and the images of a unit are right
or wrong together. A metric of 1, with no error to learn its variance from, rests on that alone."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A metric of N images.

    Attributes:
        value: nan if undefined.
        moved_U: the influence of each unit on it.
        units: how many independent units it is a mean over, if the images of a unit were all alike.
        images: the same for units of one image.
    """

    value: float
    moved_U: Floats
    units: float
    images: float

    @property
    def variance(self) -> float:
        units = len(self.moved_U)
        return float((self.moved_U**2).sum()) * units / max(units - 1, 1)

    @property
    def freedom(self) -> float:
        """The degrees of freedom of the variance, which a few units may decide: they follow from the fourth moment of
        the influences, and are at most those of normal ones."""
        square, fourth = float((self.moved_U**2).sum()), float((self.moved_U**4).sum())
        return max(min(len(self.moved_U) - 1, 3 * square**2 / fourth if fourth > 0 else np.inf), 1)

    def quantile(self, confidence: float) -> float:
        """Of Student's t."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.5 + confidence / 2))


def interval(
    output_NK: Floats,
    target: npt.NDArray[Any],
    unit_N: Ints,
    task: Task,
    *,
    metric: str = "auto",
    confidence: float = 0.95,
) -> Ends:
    """Of a metric of `task.METRICS`.

    Args:
        output_NK: (N, K), or (N, 1) for regression and anomaly scores; for reconstruction the columns of `images.py`.
        target: as `FeatureSet.targets` gives it.
        unit_N: the unit of each image, see `data/units.py`.
    """
    named = metric_named(metric, task)
    if named.key == "accuracy":
        return proportion_interval(output_NK.argmax(axis=1) == target, unit_N, confidence)
    return ends(estimate(output_NK, target, unit_N, task, named.key), named.key, confidence)


def estimate(output_NK: Floats, target: npt.NDArray[Any], unit_N: Ints, task: Task, metric: str) -> Estimate:
    """Of a metric of `task.METRICS`, by its key."""
    code_N, units = _codes(unit_N)
    everyone = np.ones(len(target), bool)
    if metric == "r2":
        return _estimate(_r2(output_NK[:, 0], target), code_N, units, everyone)
    if task == "anomaly":
        return _of_defects(output_NK[:, 0], target > 0, code_N, units, metric)
    if task == "reconstruction":
        return _estimate(images.moved(output_NK, metric), code_N, units, everyone)
    predicted_N = output_NK.argmax(axis=1)
    if metric == "accuracy":
        return _estimate(influence.of_mean((predicted_N == target).astype(np.float64)), code_N, units, everyone)
    if metric == "kappa":
        return _estimate(influence.of_kappa(predicted_N, target, output_NK.shape[1]), code_N, units, everyone)
    return _mean(class_estimates(output_NK, target, code_N, units, task, metric), units)


def ends(found: Estimate, metric: str, confidence: float) -> Ends:
    """The interval of a metric of `task.METRICS`: of R² by the logarithm of the unexplained share of the variance, of
    kappa, which starts at -1, by its place between -1 and 1; of PSNR, which is no share, by Student's t."""
    if metric == "psnr":
        reach = found.quantile(confidence) * found.variance**0.5
        return found.value - reach, found.value + reach
    if metric == "r2":
        low, high = _positive_ends(replace(found, value=1 - found.value), confidence)
        return 1 - high, 1 - low
    if metric == "kappa":
        halved = replace(found, value=(1 + found.value) / 2, moved_U=found.moved_U / 2)
        low, high = _share_ends(halved, confidence)
        return 2 * low - 1, 2 * high - 1
    return _share_ends(found, confidence)


def class_intervals(
    output_NK: Floats, target: npt.NDArray[Any], unit_N: Ints, task: Task, metric: str, confidence: float
) -> list[tuple[float, float, float]]:
    """(value, low, high) of each class, for a metric that is a mean over classes; nan if it is undefined."""
    code_N, units = _codes(unit_N)
    found = class_estimates(output_NK, target, code_N, units, task, metric)
    return [(each.value, *_share_ends(each, confidence)) for each in found]


def proportion_interval(right_N: Bools, unit_N: Ints, confidence: float) -> Ends:
    """Of the mean of zeros and ones; of independent images it is Wilson's."""
    code_N, units = _codes(unit_N)
    moved = influence.of_mean(right_N.astype(np.float64))
    if units == len(right_N):
        return wilson(units, moved[0], confidence)
    return _share_ends(_estimate(moved, code_N, units, np.ones(len(right_N), bool)), confidence)


def wilson(n: float, mean: float, confidence: float) -> Ends:
    """Interval of a share `mean` of n (Wilson 1927)."""
    return _wilson(n, mean, NormalDist().inv_cdf(0.5 + confidence / 2))


def error_intervals(predicted_N: Floats, y_N: Floats, unit_N: Ints, confidence: float) -> dict[str, Ends]:
    """Of `mae` and `rmse`, by the logarithm of the mean (squared) error."""
    apart_N = predicted_N - y_N
    code_N, units = _codes(unit_N)
    everyone = np.ones(len(code_N), bool)
    absolute, squared = (
        _positive_ends(_estimate(influence.of_mean(error_N), code_N, units, everyone), confidence)
        for error_N in (np.abs(apart_N), apart_N**2)
    )
    return {"mae": absolute, "rmse": (squared[0] ** 0.5, squared[1] ** 0.5)}


def class_estimates(
    output_NK: Floats, target: npt.NDArray[Any], code_N: Ints, units: int, task: Task, metric: str
) -> Iterator[Estimate]:
    """Of each class, one at a time: K x N numbers would not fit into memory for many of both."""
    predicted_N = output_NK.argmax(axis=1) if task == "classification" else None
    for k in range(output_NK.shape[1]):
        p_N = output_NK[:, k]
        has_N = target == k if predicted_N is not None else target[:, k] > 0
        found_N = predicted_N == k if predicted_N is not None else p_N >= 0.5
        if predicted_N is None and not has_N.any():
            yield Estimate(float("nan"), np.zeros(units), 0.0, 0.0)
        elif metric == "mean_average_precision":
            yield _estimate(influence.of_average_precision(p_N, has_N), code_N, units, has_N)
        elif metric == "auroc":
            yield _of_pairs(_estimate(influence.of_auroc(p_N, has_N), code_N, units, has_N), code_N)
        else:
            of = influence.of_recall if metric == "balanced_accuracy" else influence.of_f1
            yield _estimate(of(found_N, has_N), code_N, units, has_N)


def _codes(unit_N: Ints) -> tuple[Ints, int]:
    names, code_N = np.unique(unit_N, return_inverse=True)
    return code_N.astype(np.int64), len(names)


def _estimate(moved: Moved, code_N: Ints, units: int, counted_N: Bools) -> Estimate:
    """
    Args:
        counted_N: the images that the metric is a mean over.
    """
    value, moved_N = moved
    moved_U = np.bincount(code_N, weights=moved_N, minlength=units).astype(np.float64)
    return Estimate(value, moved_U, _alike(code_N[counted_N]), float(counted_N.sum()))


def _alike(code_M: Ints) -> float:
    """The number of equally large units whose mean would vary as much as that of these (Kish 1965)."""
    size_U = np.bincount(code_M).astype(np.float64)
    return float(size_U.sum() ** 2 / (size_U**2).sum()) if len(code_M) else 1.0


def _of_defects(score_N: Floats, defect_N: Bools, code_N: Ints, units: int, metric: str) -> Estimate:
    """Of anomaly scores; nan without both good images and defects."""
    if defect_N.all() or not defect_N.any():
        return Estimate(float("nan"), np.zeros(units), 0.0, 0.0)
    if metric == "average_precision":
        return _estimate(influence.of_average_precision(score_N, defect_N), code_N, units, defect_N)
    return _of_pairs(_estimate(influence.of_auroc(score_N, defect_N), code_N, units, defect_N), code_N)


def _of_pairs(of_class: Estimate, code_N: Ints) -> Estimate:
    """A mean over pairs of an image with the class and one without: the harmonic mean of both numbers, twice."""
    everything = _alike(code_N), float(len(code_N))
    units, images = (
        4 / (1 / max(with_class, 1.0) + 1 / max(whole - with_class, 1.0))
        for with_class, whole in zip((of_class.units, of_class.images), everything)
    )
    return Estimate(of_class.value, of_class.moved_U, units, images)


def _mean(of_classes: Iterable[Estimate], units: int) -> Estimate:
    """Of the K means that are known, which are over different images."""
    values, images, alike, moved_U = [], [], [], np.zeros(units)
    for each in of_classes:
        if not np.isnan(each.value):
            values.append(each.value)
            images.append(max(each.images, 1.0))
            alike.append(max(each.units, 1.0))
            moved_U += each.moved_U
    k = len(values)
    if not k:
        return Estimate(0.0, moved_U, 1.0, 1.0)
    of_units, of_images = (k**2 / sum(1 / number for number in numbers) for numbers in (alike, images))
    return Estimate(sum(values) / k, moved_U / k, min(of_units, units), of_images)


def _r2(predicted_N: Floats, y_N: Floats) -> Moved:
    """Without influences where it is not estimated: numbers without variance, or predictions without error."""
    value = r2(predicted_N, y_N)
    if value in (0.0, 1.0):
        return value, np.zeros(len(y_N))
    return value, -influence.of_r2(predicted_N, y_N)[1]


def _share_ends(found: Estimate, confidence: float) -> Ends:
    if np.isnan(found.value):
        return float("nan"), float("nan")
    # The variance is value (1 - value) / n. Before it is known, n is the number of units.
    known, prior = found.value * (1 - found.value), PRIOR / max(found.images, 1.0)
    n = (known + prior) / (found.variance + prior / max(found.units, 1.0))
    return _wilson(n, found.value, found.quantile(confidence))


def _wilson(n: float, mean: float, z: float) -> Ends:
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    return min(mean, max(0.0, centre - reach)), max(mean, min(1.0, centre + reach))  # in spite of rounding


def _positive_ends(found: Estimate, confidence: float) -> Ends:
    """Of a positive number, by its logarithm; of 0 it is 0."""
    if found.value <= 0:
        return found.value, found.value
    reach = np.exp(found.quantile(confidence) * found.variance**0.5 / found.value)
    return float(found.value / reach), float(found.value * reach)
