"""How much each image moves a metric: its influence function, the derivative by the weight of the image.

With weights 1 + d_n the metric is its value plus the sum of d_n times the influence of image n, to first order; the
influences of all images sum to 0. The variance of the metric is that of the sums of the influences over independent
units (the infinitesimal jackknife: Efron 1982, chapter 6; linearisation: Binder 1983). For AUROC this is the method of
DeLong et al. (1988).

N images. Nothing is resampled: the cost is that of sorting the images once for each class.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Moved = tuple[float, Floats]
"""A metric, and the influence of each image, (N,); of a metric that is undefined: nan, and zeros."""


def of_mean(value_N: Floats) -> Moved:
    mean = float(value_N.mean())
    return mean, (value_N - mean) / len(value_N)


def of_recall(found_N: Bools, has_N: Bools) -> Moved:
    """Of one class: the share of the images with it (`has`) in which it is `found`."""
    total = int(has_N.sum())
    if not total:
        return _undefined(len(has_N))
    value = float((found_N & has_N).sum() / total)
    return value, np.where(has_N, found_N - value, 0.0) / total


def of_f1(found_N: Bools, has_N: Bools) -> Moved:
    """Of one class: 2 hits / (found + has)."""
    total = int(found_N.sum()) + int(has_N.sum())
    if not total:
        return _undefined(len(has_N))
    hit_N, either_N = found_N & has_N, found_N.astype(np.float64) + has_N
    value = 2 * float(hit_N.sum()) / total
    return value, (2 * hit_N - value * either_N) / total


def of_kappa(predicted_N: Ints, y_N: Ints, k: int) -> Moved:
    """Agreement beyond that of independent labels of the same frequencies (Cohen 1960); 0 if undefined."""
    n = len(y_N)
    found_K, actual_K = np.bincount(predicted_N, minlength=k) / n, np.bincount(y_N, minlength=k) / n
    chance = float(found_K @ actual_K)
    if chance >= 1:
        return 0.0, np.zeros(n)
    agreed, agreed_N = of_mean((predicted_N == y_N).astype(np.float64))
    chance_N = (actual_K[predicted_N] + found_K[y_N] - 2 * chance) / n
    return (agreed - chance) / (1 - chance), agreed_N / (1 - chance) - (1 - agreed) / (1 - chance) ** 2 * chance_N


def of_average_precision(p_N: Floats, has_N: Bools) -> Moved:
    """Of one class. It is the mean, over the images with the class, of the share of such images among all that are at
    least as probable. An image moves it by its own share, and by the shares of the images below it.
    """
    total = int(has_N.sum())
    if not total:
        return _undefined(len(p_N))
    order, start, end = _ranked(p_N)
    has = has_N[order]
    above_N = end + 1.0
    share_N = np.cumsum(has)[end] / above_N
    value = float(share_N[has].mean())
    # The derivative of the share of image i by the weight of image n, not below it: (has_n - share_i) / above_i
    with_N, any_N = (_from_here(np.where(has, each, 0.0), start) for each in (1 / above_N, share_N / above_N))
    return value, _back((has * (share_N - value + with_N) - any_N) / total, order)


def of_auroc(p_N: Floats, has_N: Bools) -> Moved:
    """Of one class, undefined if all or no images have it; ties count one half."""
    total, others = int(has_N.sum()), int((~has_N).sum())
    if not (total and others):
        return _undefined(len(p_N))
    order, start, end = _ranked(p_N)
    has = has_N[order]
    above_with, above_without = (np.append(0, np.cumsum(each)) for each in (has, ~has))
    higher_N = (above_without[start] + above_without[end + 1]) / 2
    lower_N = (above_with[start] + above_with[end + 1]) / 2
    share_N = np.where(has, 1 - higher_N / others, lower_N / total)
    value = float(share_N[has].mean())
    return value, _back((share_N - value) / np.where(has, total, others), order)


def of_r2(predicted_N: Floats, y_N: Floats) -> Moved:
    """Of the unexplained share of the variance, which is 1 - R²."""
    left, left_N = of_mean((predicted_N - y_N) ** 2)
    apart_N = y_N - y_N.mean()
    whole, whole_N = of_mean(apart_N**2)
    return left / whole, left_N / whole - left * whole_N / whole**2


def _undefined(n: int) -> Moved:
    return float("nan"), np.zeros(n)


def _ranked(p_N: Floats) -> tuple[Ints, Ints, Ints]:
    """(the images, the most probable first; the first and the last place of the same probability, of each place)."""
    order_N = np.argsort(-p_N)  # the order within a tie has no effect
    sorted_N = p_N[order_N]
    new_N = np.append(True, sorted_N[1:] != sorted_N[:-1])
    starts, run_N = np.flatnonzero(new_N), np.cumsum(new_N) - 1
    return order_N, starts[run_N], np.append(starts[1:], len(p_N))[run_N] - 1


def _from_here(value_N: Floats, start_N: Ints) -> Floats:
    """The sum of the values from the first place of the same probability on."""
    return np.cumsum(value_N[::-1])[::-1][start_N]


def _back(value_N: Floats, order_N: Ints) -> Floats:
    found_N = np.empty(len(value_N))
    found_N[order_N] = value_N
    return found_N
