"""Figures of merit from what a head gives; N images, K classes, B bootstrap samples, M bins.

What a head gives is called output, (N, K): probabilities, or (N, 1) for a number. What is true is called target: codes
(N,), zeros and ones (N, K), or numbers (N,).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.task import Task

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]


RESAMPLES = 1000
"""Of the bootstrap of a mean average precision at least: each costs as much as N * K numbers, and not one."""

WORK = 2 * 10**9
"""Numbers that a bootstrap of a mean average precision costs, unless that were too few resamples: some seconds."""

PART = 2**18
"""Numbers that are drawn at a time: more would not stay in the processor's cache."""


def main_figure(output_NK: Floats, target: npt.NDArray[Any], task: Task) -> float:
    """The task's main figure, see `task.MAIN`; more is better."""
    if task == "classification":
        return accuracy(output_NK, target)
    return mean_average_precision(output_NK, target) if task == "multilabel" else r2(output_NK[:, 0], target)


def main_figures(output_NK: Floats, target: npt.NDArray[Any], task: Task, times_BN: Floats) -> Floats:
    """The main figure of resamples, (B,), in which image n is there `times` over."""
    total_B = times_BN.sum(axis=1)
    if task == "classification":
        return times_BN @ (output_NK.argmax(axis=1) == target) / total_B
    if task == "multilabel":
        return _mean_average_precisions(_rankings(output_NK, target), times_BN.astype(np.int32))
    centred_N = target - target.mean()
    squared_B = times_BN @ (output_NK[:, 0] - target) ** 2 / total_B
    variance_B = times_BN @ centred_N**2 / total_B - (times_BN @ centred_N / total_B) ** 2
    return _r2(squared_B, variance_B, target)


def loss(output_NK: Floats, target: npt.NDArray[Any], task: Task, weight_N: Floats | None = None) -> float:
    """The task's loss, see `task.LOSS`; less is better."""
    if task == "classification":
        return log_loss(output_NK, target, weight_N)
    if task == "multilabel":
        return several_log_loss(output_NK, target, weight_N)
    return float(np.average((output_NK[:, 0] - target) ** 2, weights=weight_N))


# One class an image


def log_loss(p_NK: Floats, y_N: Ints, weight_N: Floats | None = None) -> float:
    """Mean negative log of the probability of the right class, in nats."""
    chosen = np.clip(p_NK[np.arange(len(y_N)), y_N], np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(chosen), weights=weight_N))


def accuracy(p_NK: Floats, y_N: Ints) -> float:
    return float((p_NK.argmax(axis=1) == y_N).mean())


def bootstrap_interval(
    correct_N: npt.NDArray[np.bool_], confidence: float, samples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of a mean of N zeros and ones (Efron 1979): drawing N of N with replacement is one binomial
    draw of the number of ones, so that B samples cost B numbers. Never narrower than the Wilson interval's reach at a
    mean of 0 or 1, where every resample would be the same.
    """
    n, mean = len(correct_N), float(correct_N.mean())
    if mean in (0.0, 1.0):
        return wilson(n, mean, confidence)
    return _ends(np.random.default_rng(seed).binomial(n, mean, size=samples) / n, confidence)


def wilson(n: int, mean: float, confidence: float) -> tuple[float, float]:
    """Interval of a share that was `mean` of n (Wilson 1927)."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def confusion(predicted_N: Ints, y_N: Ints, k: int) -> Ints:
    """Counts of shape (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(y_N * k + predicted_N, minlength=k * k).reshape(k, k)


def per_class(matrix_KK: Ints, names: list[str]) -> dict[str, dict[str, float]]:
    """class -> precision, recall, f1, support; 0 where there is nothing to divide by."""
    hits, predicted, actual = np.diag(matrix_KK), matrix_KK.sum(axis=0), matrix_KK.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros(len(names)), where=predicted > 0)
    recall = np.divide(hits, actual, out=np.zeros(len(names)), where=actual > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros(len(names)), where=both > 0)
    return {
        name: {
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(actual[k]),
        }
        for k, name in enumerate(names)
    }


def reliability(p_NK: Floats, y_N: Ints, bins: int) -> list[dict[str, Any]]:
    """Bins of equal width over the confidence (the largest probability): images, mean confidence and accuracy."""
    confidence, correct = p_NK.max(axis=1), p_NK.argmax(axis=1) == y_N
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        {
            "bin": (m + 0.5) / bins,
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for m in range(bins)
        if (inside := place == m).any()
    ]


def expected_calibration_error(rows: list[dict[str, Any]]) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their images (Naeini et al. 2015)."""
    total = sum(row["images"] for row in rows)
    return float(sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / total)


# Several classes an image


def several_log_loss(p_NK: Floats, y_NK: Floats, weight_N: Floats | None = None) -> float:
    """Mean over images and classes of the negative log of the probability of what is so, in nats."""
    right_NK = np.clip(np.where(y_NK > 0, p_NK, 1 - p_NK), np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(right_NK).mean(axis=1), weights=weight_N))


@dataclass(frozen=True)
class _Ranking:
    """The images from the highest probability of a class down; P of them have it.

    Attributes:
        order_N: the images.
        has_P: the places, in that order, of those that have the class.
        last_P: the last place of equal probability; images of equal probability have one rank.
        last_with_P: that place among the P.
    """

    order_N: Ints
    has_P: Ints
    last_P: Ints
    last_with_P: Ints


def _rankings(p_NK: Floats, y_NK: Floats) -> list[_Ranking]:
    return [_ranking(p, y) for p, y in zip(p_NK.T, y_NK.T, strict=True)]


def _ranking(p_N: Floats, y_N: Floats) -> _Ranking:
    order = np.argsort(-p_N, kind="stable")
    has = np.flatnonzero(y_N[order] > 0)
    last = np.searchsorted(-p_N[order], -p_N[order[has]], side="right") - 1
    return _Ranking(order, has, last, np.searchsorted(has, last, side="right") - 1)


def _average_precision(ranking: _Ranking, times_BN: Counts) -> Floats:
    """Shape (B,), where image n is there `times` over: the mean, over the images that have the class, of the share of
    those that have it among all that are ranked at least as high. Whole numbers, as they are added up eight times as
    fast."""
    ranked_BN = np.take(times_BN, ranking.order_N, axis=1)
    times_BP = np.take(ranked_BN, ranking.has_P, axis=1)
    above_BN = np.cumsum(ranked_BN, axis=1, dtype=np.int32, out=ranked_BN)
    above_with_BP = np.cumsum(times_BP, axis=1, dtype=np.int32)
    above_BP = np.maximum(np.take(above_BN, ranking.last_P, axis=1), 1)  # where none is above, none with the class is
    share_BP = np.take(above_with_BP, ranking.last_with_P, axis=1) / above_BP
    total_B = times_BP.sum(axis=1)
    summed_B = np.einsum("bp,bp->b", share_BP, times_BP)
    return np.divide(summed_B, total_B, out=np.full(len(total_B), np.nan), where=total_B > 0)


def average_precisions(p_NK: Floats, y_NK: Floats) -> Floats:
    """Of each class, shape (K,), see `_average_precision`. Not a number for a class that no image has."""
    once_1N = np.ones((1, len(p_NK)), dtype=np.int32)
    return np.array([_average_precision(ranking, once_1N)[0] for ranking in _rankings(p_NK, y_NK)])


def _mean_average_precisions(rankings: list[_Ranking], times_BN: Counts) -> Floats:
    """Of resamples, (B,), over the classes that any of a resample's images has."""
    return _mean_of_known(np.stack([_average_precision(ranking, times_BN) for ranking in rankings], axis=1))


def mean_average_precision(p_NK: Floats, y_NK: Floats) -> float:
    """Over the classes that any image has; 0 if there is none."""
    return float(_mean_of_known(average_precisions(p_NK, y_NK)[None])[0])


def _mean_of_known(values_BK: Floats) -> Floats:
    """The mean of each row's numbers, 0 where there are none."""
    known = ~np.isnan(values_BK)
    return np.where(known, values_BK, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def mean_average_precision_interval(
    p_NK: Floats, y_NK: Floats, confidence: float, samples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval over resamples of the images: `samples` of them, or as many as `WORK` allows."""
    n, rankings = len(p_NK), _rankings(p_NK, y_NK)
    most = min(samples, max(RESAMPLES, WORK // p_NK.size))
    drawn = (_times(drawn_BN) for drawn_BN in _resamples(n, most, seed))
    return _ends(np.concatenate([_mean_average_precisions(rankings, times_BN) for times_BN in drawn]), confidence)


def _times(drawn_BN: Ints) -> Counts:
    """How often each of the N images was drawn."""
    samples, n = drawn_BN.shape
    places = drawn_BN + n * np.arange(samples)[:, None]
    return np.bincount(places.ravel(), minlength=drawn_BN.size).reshape(drawn_BN.shape).astype(np.int32)


def multilabel_scores(p_NK: Floats, y_NK: Floats) -> dict[str, float]:
    """Mean average precision; with the classes at 0.5 and above taken as found: F1 as the mean over the classes that
    any image has (`f1_macro`) and over all pairs of image and class (`f1_micro`), the share of images of which all
    classes are right, and the share of pairs that are wrong."""
    found_NK, has_NK = p_NK >= 0.5, y_NK > 0
    hits, found, actual = (x.sum(axis=0).astype(np.float64) for x in (found_NK & has_NK, found_NK, has_NK))
    return {
        "mean_average_precision": mean_average_precision(p_NK, y_NK),
        "f1_macro": float(np.mean(_f1(hits, found, actual)[actual > 0])) if actual.any() else 0.0,
        "f1_micro": float(_f1(hits.sum(), found.sum(), actual.sum())),
        "subset_accuracy": float((found_NK == has_NK).all(axis=1).mean()),
        "hamming_loss": float((found_NK != has_NK).mean()),
        "log_loss": several_log_loss(p_NK, y_NK),
    }


def _f1(hits: Any, found: Any, actual: Any) -> Any:
    """2 hits / (found + actual); 0 where there is nothing to divide by."""
    return np.where(found + actual > 0, 2 * hits / np.maximum(found + actual, 1), 0.0)


def per_label(p_NK: Floats, y_NK: Floats, names: list[str]) -> dict[str, dict[str, float | None]]:
    """class -> average_precision, precision, recall, f1 and support; null or 0 where there is nothing to divide by."""
    found_NK, has_NK = p_NK >= 0.5, y_NK > 0
    hits, found, actual = (x.sum(axis=0) for x in (found_NK & has_NK, found_NK, has_NK))
    average = average_precisions(p_NK, y_NK)
    return {
        name: {
            "average_precision": float(average[k]) if actual[k] else None,
            "precision": float(hits[k] / max(found[k], 1)),
            "recall": float(hits[k] / max(actual[k], 1)),
            "f1": float(_f1(hits[k], found[k], actual[k])),
            "support": int(actual[k]),
        }
        for k, name in enumerate(names)
    }


def precision_recall(p_N: Floats, y_N: Floats) -> tuple[Floats, Floats]:
    """(recall, precision) at every probability that occurs, from the highest down."""
    order = np.argsort(-p_N, kind="stable")
    ends = np.flatnonzero(np.diff(p_N[order], append=-np.inf))
    hits = np.cumsum(y_N[order] > 0)[ends]
    return hits / max(float((y_N > 0).sum()), 1.0), hits / (ends + 1.0)


# A number


def r2(predicted_N: Floats, y_N: Floats) -> float:
    """1 less the share of the variance that is left unexplained; of numbers without variance 1 if all are right, else
    0."""
    left, whole = np.mean((predicted_N - y_N) ** 2, keepdims=True), np.var(y_N, keepdims=True)
    return float(_r2(left, whole, y_N)[0])


def _r2(squared_B: Floats, variance_B: Floats, y_N: Floats) -> Floats:
    """From mean squared errors and variances of samples of y; a variance that is but rounding counts as none: of the
    mean of all, or of the difference by which a sample's was found."""
    varies_B = variance_B > max(1e-28 * np.square(y_N).max(), 1e-12 * np.var(y_N))
    return np.where(varies_B, 1 - squared_B / np.where(varies_B, variance_B, 1.0), squared_B == 0)


def regression_scores(predicted_N: Floats, y_N: Floats) -> dict[str, float | None]:
    """R2, mean and median absolute error, the root of the mean squared error, Spearman's rank correlation (null if all
    are equal)."""
    error_N = predicted_N - y_N
    return {
        "r2": r2(predicted_N, y_N),
        "mae": float(np.abs(error_N).mean()),
        "rmse": float(np.sqrt((error_N**2).mean())),
        "median_absolute_error": float(np.median(np.abs(error_N))),
        "spearman": spearman(predicted_N, y_N),
    }


def spearman(a_N: Floats, b_N: Floats) -> float | None:
    """The correlation of the ranks; equal numbers share the mean of theirs."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(a_N), _ranks(b_N)))
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm else None


def _ranks(values_N: Floats) -> Floats:
    _, place, count = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def regression_intervals(
    predicted_N: Floats, y_N: Floats, confidence: float, samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `r2`, `mae` and `rmse` over resamples of the images."""
    found: dict[str, list[Floats]] = {"r2": [], "mae": [], "rmse": []}
    error_N, centred_N = predicted_N - y_N, y_N - y_N.mean()
    for drawn_BN in _resamples(len(y_N), samples, seed):
        squared_B = (error_N**2)[drawn_BN].mean(axis=1)
        variance_B = (centred_N**2)[drawn_BN].mean(axis=1) - centred_N[drawn_BN].mean(axis=1) ** 2
        found["r2"].append(_r2(squared_B, variance_B, y_N))
        found["mae"].append(np.abs(error_N)[drawn_BN].mean(axis=1))
        found["rmse"].append(np.sqrt(squared_B))
    return {name: _ends(np.concatenate(values), confidence) for name, values in found.items()}


def _resamples(n: int, samples: int, seed: int) -> Iterator[Ints]:
    """`samples` draws of N images out of N with replacement, (B, N) at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, PART // n)
    for start in range(0, samples, step):
        yield rng.integers(0, n, (min(step, samples - start), n))


def _ends(values_B: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_B, [tail, 1 - tail])
    return float(low), float(high)
