"""Pairs of classes that models on these features take for each other. N images, K classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.metrics import wilson
from ..common.pack import Pack, Rows

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Of the intervals, for all pairs at once (Bonferroni): two images do not make a pair."""

COLUMNS = ["class", "other_class", "images", "taken", "taken_for_other", "share", "low", "high"]


def mixed_up(pack: Pack, rows: Rows, p_NK: Floats) -> pd.DataFrame:
    """All pairs of classes of which any image was taken for the other, the worst first: `COLUMNS`.

    Counted are images of exactly one of the two (p: out of fold, nan where not known). `taken` of them were taken for
    the other, `taken_for_other` being those of the first class; `low` and `high` bound their share.
    """
    known = ~np.isnan(p_NK).any(axis=1)
    has_NK = _marks(pack, pack.targets(rows[known]))
    said_NK = _said(pack, p_NK[known])
    lost_NK, gained_NK = has_NK * (1 - said_NK), (1 - has_NK) * said_NK
    taken_KK = lost_NK.T @ gained_NK
    only_KK = has_NK.T @ (1 - has_NK)
    first, second = np.nonzero(np.triu(taken_KK + taken_KK.T, 1))
    images, forth = (only_KK + only_KK.T)[first, second], taken_KK[first, second]
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
    """Of `mixed_up`, the pairs of which surely more than this share is taken for the other."""
    return pairs[pairs["low"] > share].reset_index(drop=True)


def _marks(pack: Pack, target: npt.NDArray[Any]) -> Floats:
    """Zeros and ones (N, K)."""
    return target if pack.task == "multilabel" else np.eye(len(pack.classes))[target]


def _said(pack: Pack, p_NK: Floats) -> Floats:
    """The same of what was predicted."""
    return (p_NK >= 0.5).astype(np.float64) if pack.task == "multilabel" else _marks(pack, p_NK.argmax(axis=1))
