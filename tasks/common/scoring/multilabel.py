"""Metrics for several classes per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .bootstrap import Counts, Floats, Ints, interval_ends, resamples, times_drawn

RESAMPLES = 1000
"""Minimum for the bootstrap of a mean average precision, where one resample costs N * K numbers."""


WORK = 2 * 10**9
"""Maximum cost of that bootstrap in numbers, some seconds, unless `RESAMPLES` needs more."""


def several_log_loss(p_NK: Floats, y_NK: Floats, weight_N: Floats | None = None) -> float:
    """Mean over images and classes of the negative log of the probability of the truth, in nats."""
    right_NK = np.clip(np.where(y_NK > 0, p_NK, 1 - p_NK), np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(right_NK).mean(axis=1), weights=weight_N))


@dataclass(frozen=True)
class _Ranking:
    """The images by probability of a class, the highest first; P of them have it.

    Attributes:
        order_N: the images.
        has_P: the places in that order of those with the class.
        last_P: the last place of equal probability; images of equal probability have one rank.
        last_with_P: that place among the P.
    """

    order_N: Ints
    has_P: Ints
    last_P: Ints
    last_with_P: Ints


def rankings_of(p_NK: Floats, y_NK: Floats) -> list[_Ranking]:
    return [_ranking(p, y) for p, y in zip(p_NK.T, y_NK.T, strict=True)]


def _ranking(p_N: Floats, y_N: Floats) -> _Ranking:
    order = np.argsort(-p_N, kind="stable")
    has = np.flatnonzero(y_N[order] > 0)
    last = np.searchsorted(-p_N[order], -p_N[order[has]], side="right") - 1
    return _Ranking(order, has, last, np.searchsorted(has, last, side="right") - 1)


def _average_precision(ranking: _Ranking, times_BN: Counts) -> Floats:
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


def mean_average_precisions(rankings: list[_Ranking], times_BN: Counts) -> Floats:
    """For each resample, (B,), over the classes that any of its images has."""
    return _mean_of_known(np.stack([_average_precision(ranking, times_BN) for ranking in rankings], axis=1))


def mean_average_precision(p_NK: Floats, y_NK: Floats) -> float:
    """Over the classes that any image has; 0 if there is none."""
    return float(_mean_of_known(average_precisions(p_NK, y_NK)[None])[0])


def _mean_of_known(values_BK: Floats) -> Floats:
    """The mean of the numbers in each row that are not nan; 0 if there are none."""
    known = ~np.isnan(values_BK)
    return np.where(known, values_BK, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def mean_average_precision_interval(
    p_NK: Floats, y_NK: Floats, confidence: float, samples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval over resamples of the images: `samples` of them, or as many as `WORK` allows."""
    n, rankings = len(p_NK), rankings_of(p_NK, y_NK)
    most = min(samples, max(RESAMPLES, WORK // p_NK.size))
    drawn = (times_drawn(drawn_BN) for drawn_BN in resamples(n, most, seed))
    return interval_ends(
        np.concatenate([mean_average_precisions(rankings, times_BN) for times_BN in drawn]), confidence
    )


def multilabel_scores(p_NK: Floats, y_NK: Floats) -> dict[str, float]:
    """Mean average precision; at a probability of 0.5 and above: F1 as the mean over the classes that any image has
    (`f1_macro`) and over all pairs of image and class (`f1_micro`), the share of images with all classes correct, and
    the share of wrong pairs."""
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
    """2 hits / (found + actual); 0 if undefined."""
    return np.where(found + actual > 0, 2 * hits / np.maximum(found + actual, 1), 0.0)


def per_label(p_NK: Floats, y_NK: Floats, names: list[str]) -> dict[str, dict[str, float | None]]:
    """class -> average_precision, precision, recall, f1 and support; null or 0 if undefined."""
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
    """(recall, precision) at every probability that occurs, the highest first."""
    order = np.argsort(-p_N, kind="stable")
    ends = np.flatnonzero(np.diff(p_N[order], append=-np.inf))
    hits = np.cumsum(y_N[order] > 0)[ends]
    return hits / max(float((y_N > 0).sum()), 1.0), hits / (ends + 1.0)
