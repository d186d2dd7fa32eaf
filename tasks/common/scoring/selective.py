"""A threshold on the score that keeps a promise: the share of wrong answers among the images that are answered.

Selection with guaranteed risk (Geifman & El-Yaniv 2017): the model answers where its score is above a threshold. Of N
images that it was not trained on, n have a higher score, and e of these are wrong; then the true share of wrong answers
is above u with a chance of d at most, where u is Clopper & Pearson's exact upper bound: P(Bin(n, u) <= e) = d. Here d
is 1 - confidence, shared out among the places where the search starts, so that the chance that the promise does not
hold is d in all. They halve the distance to the threshold, and every halving has its share. We start from all images,
half of them, a quarter and so on, and go down from each of these places image by image as long as the bound holds: a
search in a fixed order that ends where it first fails needs no further share (Angelopoulos et al. 2021), if images of
lower score are no less often wrong. Of 1,000 draws of 288 hand signs that promises 3 % with 90 % confidence in 997,
halving in none; the promise was broken in 6.

The bound is one for independent images that have chosen nothing else. Those of a group are fewer than they seem, and
the images that find a threshold here have chosen the strength and the temperature before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SMALLEST_START = 32
"""No search starts with fewer images: not even without any error would they promise less than 7 % (with d = 0.1)."""


@dataclass(frozen=True)
class Cuts:
    """Every threshold that makes a difference, from the highest down; M of them.

    Attributes:
        threshold_M: answered is what has a higher score; the last is 0, with which all is answered.
        answered_M: how many images.
        errors_M: how many of these are wrong.
    """

    threshold_M: Floats
    answered_M: Ints
    errors_M: Ints

    @classmethod
    def of(cls, score_N: Floats, wrong_N: Bools) -> Cuts:
        order = np.argsort(-score_N, kind="stable")
        score, errors = score_N[order], np.cumsum(wrong_N[order], dtype=np.int64)
        last = np.flatnonzero(np.append(score[1:] < score[:-1], True))
        below = np.append(score[1:], 0.0)[last]
        return cls(below, last + 1, errors[last])

    @property
    def images(self) -> int:
        return int(self.answered_M[-1])

    def table(self) -> dict[str, Floats]:
        """The risk-coverage curve: share answered, share of wrong answers among them, threshold."""
        return {
            "coverage": self.answered_M / self.images,
            "error": self.errors_M / self.answered_M,
            "threshold": self.threshold_M,
        }


@dataclass(frozen=True)
class Promise:
    """What can be promised.

    Attributes:
        threshold: None if nothing so small can be.
        answered, errors: images above it, and how many are wrong.
        least: the smallest share of wrong answers that could be promised with these images.
    """

    threshold: float | None
    answered: int
    errors: int
    least: float


def upper_bound(errors: npt.ArrayLike, images: npt.ArrayLike, chance: float) -> Floats:
    """Clopper & Pearson's: the share of errors that is exceeded with this chance at most."""
    e, n = np.asarray(errors, np.float64), np.asarray(images, np.float64)
    return np.where(e < n, betaincinv(e + 1, np.maximum(n - e, 1), 1 - chance), 1.0)


def promise(score_N: Floats, wrong_N: Bools, max_error: float, confidence: float) -> Promise:
    """The lowest threshold of which it can be said with `confidence` that at most `max_error` of what is above it is
    wrong.

    Args:
        score_N: of images that had no part in training.
        wrong_N: whether the model's label is wrong.
    """
    cuts = Cuts.of(score_N, wrong_N)
    starts = _starts(cuts)
    chance = (1 - confidence) / len(starts)
    holds = bdtr(cuts.errors_M, cuts.answered_M, max_error) <= chance
    reached = [start + int(np.argmin(np.append(holds[start:], False))) for start in starts]  # places before they fail
    last = max((end - 1 for start, end in zip(starts, reached, strict=True) if end > start), default=None)
    least = float(upper_bound(cuts.errors_M[starts], cuts.answered_M[starts], chance).min())
    if last is None:
        return Promise(None, 0, 0, least)
    return Promise(float(cuts.threshold_M[last]), int(cuts.answered_M[last]), int(cuts.errors_M[last]), least)


def _starts(cuts: Cuts) -> list[int]:
    """Places among the cuts: all images, half of them, and so on; what is answered must not depend on what is wrong."""
    halvings = max(0, int(np.log2(max(cuts.images, 1) / SMALLEST_START)))
    ranks = [cuts.images >> j for j in range(halvings + 1)]
    return [max(0, int(np.searchsorted(cuts.answered_M, rank, side="right")) - 1) for rank in ranks]


def thinned(table: dict[str, Floats], points: int) -> dict[str, Any]:
    """At most so many rows of a curve, the first and the last among them."""
    n = len(next(iter(table.values())))
    rows = np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(np.int64))
    return {name: values[rows] for name, values in table.items()}
