"""Pairs of classes that models on these features confuse. N images, K classes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.feature_set import FeatureSet, Rows
from ..common.scoring.classification import confusion
from ..common.scoring.intervals import wilson

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

CONFIDENCE = 0.95
"""Of the intervals, for all pairs together (Bonferroni): two images do not make a pair."""

COLUMNS = ["class", "other_class", "images", "taken", "taken_for_other", "share", "low", "high"]


def mixed_up(pack: FeatureSet, rows: Rows, p_NK: Floats) -> pd.DataFrame:
    """All pairs of classes with an image of one that was predicted as the other, the most confused first: `COLUMNS`.

    Only images of exactly one of the two count (p: out of fold, nan if unknown). `taken` of them were predicted as the
    other, `taken_for_other` of the first class; `low` and `high` bound their share.
    """
    known = ~np.isnan(p_NK).any(axis=1)
    count = _several if pack.task == "multilabel" else _single
    taken_KK, either_KK = count(pack.targets(rows[known]), p_NK[known])
    first, second = np.nonzero(np.triu(taken_KK + taken_KK.T, 1))
    images, forth = either_KK[first, second], taken_KK[first, second]
    taken = forth + taken_KK[second, first]
    confidence = 1 - (1 - CONFIDENCE) / max(1, math.comb(len(pack.classes), 2))
    bounds = [wilson(int(n), t / n, confidence) for n, t in zip(images, taken, strict=True)]
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
