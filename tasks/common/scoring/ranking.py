"""Metrics of rankings: average precision (the area under the precision-recall curve) and AUROC, also of resamples.

N images, K classes, B resamples; y is 1 for an image with the class. P images have a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .resampling import Counts, Floats, Ints


@dataclass(frozen=True)
class Ranking:
    """The images by probability of a class, the highest first; P of them have it.

    Attributes:
        order_N: the images.
        has_P: the places in that order of those with the class.
        first_P: the first place of equal probability.
        last_P: the last place of equal probability; images of equal probability have one rank.
        last_with_P: that place among the P.
    """

    order_N: Ints
    has_P: Ints
    first_P: Ints
    last_P: Ints
    last_with_P: Ints


def rankings_of(p_NK: Floats, target: npt.NDArray[Any]) -> Iterator[Ranking]:
    """One class at a time: those of many classes and images would not fit into memory.

    Args:
        target: (N, K) zeros and ones, or int64 (N,) the class of each image.
    """
    for k, p_N in enumerate(p_NK.T):
        yield _ranking(p_N, target == k if target.ndim == 1 else target[:, k] > 0)


def _ranking(p_N: Floats, has_N: npt.NDArray[np.bool_]) -> Ranking:
    order = np.argsort(-p_N, kind="stable")
    has = np.flatnonzero(has_N[order])
    last = np.searchsorted(-p_N[order], -p_N[order[has]], side="right") - 1
    first = np.searchsorted(-p_N[order], -p_N[order[has]], side="left")
    return Ranking(order, has, first, last, np.searchsorted(has, last, side="right") - 1)


def _average_precision(ranking: Ranking, times_BN: Counts) -> Floats:
    """Shape (B,), where image n occurs `times`: the mean, over the images with the class, of the share of such images
    among all that are ranked at least as high. Integers, which are summed eight times as fast."""
    ranked_BN = np.take(times_BN, ranking.order_N, axis=1)
    times_BP = np.take(ranked_BN, ranking.has_P, axis=1)
    above_BN = np.cumsum(ranked_BN, axis=1, dtype=np.int32, out=ranked_BN)
    above_with_BP = np.cumsum(times_BP, axis=1, dtype=np.int32)
    above_BP = np.maximum(np.take(above_BN, ranking.last_P, axis=1), 1)  # if none is above, none with the class is
    share_BP = np.take(above_with_BP, ranking.last_with_P, axis=1) / above_BP
    total_B = times_BP.sum(axis=1)
    summed_B = np.einsum("bp,bp->b", share_BP, times_BP)
    return np.divide(summed_B, total_B, out=np.full(len(total_B), np.nan), where=total_B > 0)


def average_precisions(p_NK: Floats, y_NK: Floats) -> Floats:
    """For each class, shape (K,), see `_average_precision`; nan for a class that no image has."""
    once_1N = np.ones((1, len(p_NK)), dtype=np.int32)
    return np.array([_average_precision(ranking, once_1N)[0] for ranking in rankings_of(p_NK, y_NK)])


def mean_average_precisions(rankings: Iterable[Ranking], times_BN: Counts) -> Floats:
    """For each resample, (B,), over the classes that any of its images has."""
    return _mean_of_known(np.stack([_average_precision(ranking, times_BN) for ranking in rankings], axis=1))


def mean_average_precision(p_NK: Floats, y_NK: Floats) -> float:
    """Over the classes that any image has; 0 if there is none."""
    return float(_mean_of_known(average_precisions(p_NK, y_NK)[None])[0])


def aurocs(p_NK: Floats, y_NK: Floats) -> Floats:
    """For each class, shape (K,), the chance that an image with it is ranked above one without it, ties as one half;
    nan for a class that all or no images have."""
    once_1N = np.ones((1, len(p_NK)), dtype=np.int32)
    return np.array([_auroc(ranking, once_1N)[0] for ranking in rankings_of(p_NK, y_NK)])


def mean_aurocs(rankings: Iterable[Ranking], times_BN: Counts) -> Floats:
    """For each resample, (B,), over the classes that some and not all of its images have."""
    return _mean_of_known(np.stack([_auroc(ranking, times_BN) for ranking in rankings], axis=1))


def mean_auroc(p_NK: Floats, y_NK: Floats) -> float:
    return float(_mean_of_known(aurocs(p_NK, y_NK)[None])[0])


def _auroc(ranking: Ranking, times_BN: Counts) -> Floats:
    """Shape (B,): Mann and Whitney's U over the pairs, from how many images without the class are ranked higher or
    equal."""
    ranked_BN = np.take(times_BN, ranking.order_N, axis=1).astype(np.int64)
    with_BN = np.zeros_like(ranked_BN)
    with_BN[:, ranking.has_P] = ranked_BN[:, ranking.has_P]
    without_BN = np.cumsum(ranked_BN - with_BN, axis=1)
    times_BP = ranked_BN[:, ranking.has_P]
    at_least_BP = without_BN[:, ranking.last_P]
    above_BP = np.where(ranking.first_P > 0, without_BN[:, ranking.first_P - 1], 0)
    lost_B = np.einsum("bp,bp->b", times_BP, (at_least_BP + above_BP) / 2)
    pairs_B = times_BP.sum(axis=1) * without_BN[:, -1]
    return np.divide(pairs_B - lost_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)


def of_defects(score_N: Floats, defect_N: npt.NDArray[np.bool_], metric: str, times_BN: Counts) -> Floats:
    """`auroc` or `average_precision` of anomaly scores for each resample, (B,); nan without both good images and
    defects."""
    ranking = _ranking(score_N, defect_N)
    values_B = (_auroc if metric == "auroc" else _average_precision)(ranking, times_BN)
    both_B = (times_BN[:, defect_N].sum(axis=1) > 0) & (times_BN[:, ~defect_N].sum(axis=1) > 0)
    return np.where(both_B, values_B, np.nan)


def _mean_of_known(values_BK: Floats) -> Floats:
    """The mean of the numbers in each row that are not nan; 0 if there are none."""
    known = ~np.isnan(values_BK)
    return np.where(known, values_BK, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def precision_recall(p_N: Floats, has_N: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """(recall, precision) at every probability that occurs, the highest first."""
    hits, false = _counts_above(p_N, has_N)
    return hits / max(hits[-1], 1.0), hits / (hits + false)


def roc(p_N: Floats, has_N: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """(false positive rate, true positive rate) at every probability that occurs, the highest first; from (0, 0) on."""
    hits, false = (np.append(0.0, each) for each in _counts_above(p_N, has_N))
    return false / max(false[-1], 1.0), hits / max(hits[-1], 1.0)


def _counts_above(p_N: Floats, has_N: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """How many images with and without the class are at least as probable, at every probability that occurs."""
    order = np.argsort(-p_N, kind="stable")
    ends = np.flatnonzero(np.diff(p_N[order], append=-np.inf))
    hits = np.cumsum(has_N[order] > 0)[ends].astype(np.float64)
    return hits, ends + 1.0 - hits
