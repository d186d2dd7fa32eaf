"""Backbones compared on the same held-out images. N images, M candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Probed:
    """A candidate and its measurements.

    Attributes:
        name: as the user knows it.
        correct_N: which held-out images its head classified correctly.
        accuracy, low, high: the share of `correct_N`, with its interval.
        log_loss: on the same images.
        settings: of its head, chosen on these images.
        images_per_second: from files to features.
        measured: what the speed was measured on, in words.
        megabytes: size of the parameters without the classifier, in float32.
        dimension: D, the length of a feature vector.
    """

    name: str
    correct_N: Mask
    accuracy: float
    low: float
    high: float
    log_loss: float
    settings: Mapping[str, float]
    images_per_second: float
    measured: str
    megabytes: float
    dimension: int


@dataclass(frozen=True)
class Standing:
    """A candidate among the others.

    Attributes:
        p: of the exact McNemar test against the most accurate candidate; 1 for that one.
        on_front: whether no other candidate is at least as accurate and as fast, and better in one of the two.
    """

    probed: Probed
    p: float
    on_front: bool


def rank(candidates: Sequence[Probed]) -> list[Standing]:
    """The most accurate first; among equally accurate ones the lowest log loss first."""
    ordered = sorted(candidates, key=lambda one: (-one.accuracy, one.log_loss))
    on_front = front([(one.accuracy, one.images_per_second) for one in ordered])
    return [
        Standing(one, mcnemar(ordered[0].correct_N, one.correct_N), ahead)
        for one, ahead in zip(ordered, on_front, strict=True)
    ]


def fastest_as_good(standings: Sequence[Standing], significance: float) -> Standing:
    """The fastest candidate that is not significantly worse than the most accurate one."""
    as_good = [one for one in standings if one.p >= significance]
    return max(as_good, key=lambda one: one.probed.images_per_second)


def mcnemar(a_N: Mask, b_N: Mask) -> float:
    """Two-sided p of the exact test (McNemar 1947) that two classifiers are correct equally often on the same images.

    Only images that exactly one of the two classifies correctly count. If the two were equally good, either would win
    each of these with probability 1/2: p is twice the lower tail of a binomial.
    """
    a_alone, b_alone = int(np.count_nonzero(a_N & ~b_N)), int(np.count_nonzero(~a_N & b_N))
    if a_alone + b_alone == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(a_alone, b_alone), a_alone + b_alone, 0.5)))


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of M points no other point dominates; larger is better in both dimensions."""
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b
