"""A threshold on the score that guarantees an error rate among the images that are answered.

Selection with guaranteed risk (Geifman & El-Yaniv 2017): the model answers if its score is above a threshold. Of N
images that it was not trained on, n have a higher score, and e of these are wrong; then the true error rate is above u
with a probability of at most d, where u is the exact upper bound of Clopper & Pearson: P(Bin(n, u) <= e) = d. Here d is
1 - confidence, divided among the starts of the search, so that the guarantee fails with a probability of at most d in
all. Geifman & El-Yaniv bisect, and every bisection has its share. We start from all images, half of them, a quarter and
so on, and go on from each start image by image as long as the bound holds: a search in a fixed order that ends at the
first failure needs no further share (Angelopoulos et al. 2021), if images of lower score are no less often wrong. In
1,000 draws of 288 hand signs, that guarantees 3 % with 90 % confidence in 997, bisection in none; the guarantee failed
in 6.

The bound holds for independent images. Images of one unit (a group, or copies of a picture) may be right or wrong
together, so n images in units of n_1, n_2, ... count as n^2 / sum n_u^2 (Kish 1965: the effective number if the images
of a unit are all alike), and their errors in proportion. That is the number of units if these are of the same size. A
smaller design effect could only be estimated from the errors, and where there are none it cannot be. In 2,000 draws of
groups of 20 with an intraclass correlation of 0.3, where no threshold keeps the promise, images counted one by one
broke 90 % confidence in 23 % (40 groups), units in 0.1 % (`bench/simulations/selective.py`).

The images used here have also chosen the strength and the temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, up to half a second each, when they are first used

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SMALLEST_START = 32
"""No search starts with fewer independent images: even without an error they would guarantee no less than 7 % (with
d = 0.1)."""


@dataclass(frozen=True)
class Cuts:
    """Every threshold that makes a difference, the highest first; M of them.

    Attributes:
        threshold_M: images with a higher score are answered; at the last one, 0, all are.
        answered_M: how many images are answered.
        errors_M: how many of these are wrong.
        effective_M: as how many independent images the answered ones count.
    """

    threshold_M: Floats
    answered_M: Ints
    errors_M: Ints
    effective_M: Floats

    @classmethod
    def of(cls, score_N: Floats, wrong_N: Bools, unit_N: Ints | None = None) -> Cuts:
        """Args:
        unit_N: codes of the independent units; none: every image is one.
        """
        order = np.argsort(-score_N, kind="stable")
        score, errors = score_N[order], np.cumsum(wrong_N[order], dtype=np.int64)
        last = np.flatnonzero(np.append(score[1:] < score[:-1], True))
        below = np.append(score[1:], 0.0)[last]
        answered = last + 1
        squares = answered if unit_N is None else np.cumsum(2 * _earlier(unit_N[order]) + 1)[last]
        return cls(below, answered, errors[last], answered**2 / squares)

    @property
    def images(self) -> int:
        return int(self.answered_M[-1])

    @property
    def effective_errors(self) -> Floats:
        """The errors among as many independent images."""
        return self.errors_M * (self.effective_M / self.answered_M)

    def table(self) -> dict[str, Floats]:
        """The risk-coverage curve: coverage, error rate, threshold."""
        return {
            "coverage": self.answered_M / self.images,
            "error": self.errors_M / self.answered_M,
            "threshold": self.threshold_M,
        }


def _earlier(unit_N: Ints) -> Ints:
    """How many images before each one are of its unit: in unit u they add up n_u^2 as the sum of 2 * earlier + 1."""
    order = np.argsort(unit_N, kind="stable")
    sorted_N = unit_N[order]
    earlier = np.empty(len(unit_N), np.int64)
    earlier[order] = np.arange(len(unit_N)) - np.searchsorted(sorted_N, sorted_N)
    return earlier


@dataclass(frozen=True)
class Promise:
    """A guarantee.

    Attributes:
        threshold: None if the error rate cannot be guaranteed.
        answered, errors: images above it, and how many are wrong.
        least: the smallest error rate that could be guaranteed with these images.
    """

    threshold: float | None
    answered: int
    errors: int
    least: float


def upper_bound(errors: npt.ArrayLike, images: npt.ArrayLike, chance: float) -> Floats:
    """Of Clopper & Pearson: the error rate that is exceeded with at most this probability; neither number need be
    whole."""
    e, n = np.asarray(errors, np.float64), np.asarray(images, np.float64)
    return np.where(e < n, scipy.special.betaincinv(e + 1, np.maximum(n - e, 1), 1 - chance), 1.0)


def promise(
    score_N: Floats, wrong_N: Bools, max_error: float, confidence: float, unit_N: Ints | None = None
) -> Promise:
    """The lowest threshold above which, with `confidence`, at most `max_error` of the predictions are wrong.

    Args:
        score_N: of images that were not used for training.
        wrong_N: whether the predicted label is wrong.
        unit_N: codes of the independent units; none: every image is one.
    """
    cuts = Cuts.of(score_N, wrong_N, unit_N)
    starts = _starts(cuts)
    chance = (1 - confidence) / len(starts)
    errors_M = cuts.effective_errors
    holds = at_most(errors_M, cuts.effective_M, max_error) <= chance
    reached = [start + int(np.argmin(np.append(holds[start:], False))) for start in starts]  # the end of each search
    last = max((end - 1 for start, end in zip(starts, reached, strict=True) if end > start), default=None)
    least = float(upper_bound(errors_M[starts], cuts.effective_M[starts], chance).min())
    if last is None:
        return Promise(None, 0, 0, least)
    return Promise(float(cuts.threshold_M[last]), int(cuts.answered_M[last]), int(cuts.errors_M[last]), least)


def at_most(errors: Floats, images: Floats, rate: float) -> Floats:
    """P(Bin(images, rate) <= errors), also between whole numbers."""
    return np.where(
        errors < images, scipy.special.betainc(np.maximum(images - errors, 1e-9), errors + 1, 1 - rate), 1.0
    )


def _starts(cuts: Cuts) -> list[int]:
    """Indices of cuts: all images, half of them, and so on; independent of which predictions are wrong."""
    halvings = max(0, int(np.log2(max(float(cuts.effective_M[-1]), 1) / SMALLEST_START)))
    ranks = [cuts.images >> j for j in range(halvings + 1)]
    return [max(0, int(np.searchsorted(cuts.answered_M, rank, side="right")) - 1) for rank in ranks]


def thinned(table: dict[str, Floats], points: int) -> dict[str, Any]:
    """At most `points` rows of a curve, with the first and the last."""
    n = len(next(iter(table.values())))
    rows = np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(np.int64))
    return {name: values[rows] for name, values in table.items()}
