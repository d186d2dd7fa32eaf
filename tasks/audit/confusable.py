"""Pairs of classes that models on these features confuse. N images, K classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.feature_set import FeatureSet, Rows
from ..common.scoring.classification import confusion
from ..common.scoring.intervals import proportion_interval

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
"""Of the intervals, for all pairs together (Bonferroni): two images do not make a pair."""

COLUMNS = ["class", "other_class", "images", "taken", "taken_for_other", "share", "low", "high"]


def mixed_up(pack: FeatureSet, rows: Rows, p_NK: Floats, unit_N: Rows) -> pd.DataFrame:
    """All pairs of classes with an image of one that was predicted as the other, the most confused first: `COLUMNS`.

    Only images of exactly one of the two count (p: out of fold, nan if unknown). `taken` of them were predicted as the
    other, `taken_for_other` of the first class; `low` and `high` bound their share, over the units of the images.
    """
    known = ~np.isnan(p_NK).any(axis=1)
    target, p_NK, unit_N = pack.targets(rows[known]), p_NK[known], unit_N[known]
    count, between_of = (_several, _several_between) if pack.task == "multilabel" else (_single, _single_between)
    taken_KK, either_KK = count(target, p_NK)
    first, second = np.nonzero(np.triu(taken_KK + taken_KK.T, 1))
    images, forth = either_KK[first, second], taken_KK[first, second]
    taken = forth + taken_KK[second, first]
    confidence = 1 - (1 - CONFIDENCE) / max(1, math.comb(len(pack.classes), 2))
    between = between_of(target, p_NK)
    pairs = (between(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True))
    bounds = [proportion_interval(taken_M, unit_N[of_M], confidence) for of_M, taken_M in pairs]
    names = np.array(pack.classes, dtype=object)
    table = pd.DataFrame(
        {
            "class": names[first],
            "other_class": names[second],
            "images": images.astype(np.int64),
            "taken": taken.astype(np.int64),
            "taken_for_other": forth.astype(np.int64),
            "share": taken / np.maximum(images, 1),
            "low": [low for low, _ in bounds],
            "high": [high for _, high in bounds],
        },
        columns=COLUMNS,
    )
    return table.sort_values(["low", "class", "other_class"], ascending=[False, True, True], ignore_index=True)


def confusable(pairs: pd.DataFrame, share: float) -> pd.DataFrame:
    """The pairs of `mixed_up` in which significantly more than this share is confused."""
    return pairs[pairs["low"] > share].reset_index(drop=True)


def _single(y_N: npt.NDArray[np.int64], p_NK: Floats) -> tuple[Counts, Counts]:
    """(images of a class that were predicted as another, images of either), (K, K); nothing is as large as N x K."""
    taken_KK = confusion(p_NK.argmax(axis=1), y_N, p_NK.shape[1])
    count_K = taken_KK.sum(axis=1)
    np.fill_diagonal(taken_KK, 0)
    return taken_KK, count_K[:, None] + count_K


def _several(has_NK: Floats, p_NK: Floats) -> tuple[Counts, Counts]:
    """The same for images of exactly one of the two."""
    predicted_NK = (p_NK >= 0.5).astype(np.float64)
    taken_KK = (has_NK * (1 - predicted_NK)).T @ ((1 - has_NK) * predicted_NK)
    only_KK = has_NK.T @ (1 - has_NK)
    return taken_KK.astype(np.int64), (only_KK + only_KK.T).astype(np.int64)


Between = Callable[[int, int], tuple[Rows, Bools]]
"""Of two classes: (the images of exactly one of them, which of these were predicted as the other)."""


def _single_between(y_N: Counts, p_NK: Floats) -> Between:
    """Looks at the images of the two classes alone: a thousand classes may have as many pairs as there are images."""
    predicted_N = p_NK.argmax(axis=1)
    count_K = np.bincount(y_N, minlength=p_NK.shape[1])
    images_K = np.split(np.argsort(y_N, kind="stable"), np.cumsum(count_K)[:-1])

    def between(i: int, j: int) -> tuple[Rows, Bools]:
        of_M = np.sort(np.concatenate([images_K[i], images_K[j]]))
        return of_M, predicted_N[of_M] == i + j - y_N[of_M]

    return between


def _several_between(has_NK: Floats, p_NK: Floats) -> Between:
    predicted_NK = p_NK >= 0.5

    def between(i: int, j: int) -> tuple[Rows, Bools]:
        of_M = np.flatnonzero(has_NK[:, i] != has_NK[:, j])
        return of_M, (predicted_NK[of_M][:, [i, j]] != (has_NK[of_M][:, [i, j]] > 0)).all(axis=1)

    return between
