"""Backbones compared on the same held-out images. M images, K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..common.scoring.paired import Outcome, outcome
from .held import Held

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

AsGood = Literal["best", "yes", "no", "too few"]


@dataclass(frozen=True)
class Probed:
    """A candidate and its measurements.

    Attributes:
        name: as the user knows it.
        output_MK: of its head, for the held-out images.
        value, low, high: the metric, with its interval.
        loss: on the same images, see `task.LOSS`.
        settings: of its head, chosen on these images.
        images_per_second: from files to features.
        measured: what the speed was measured on, in words.
        megabytes: size of the parameters without the classifier, in float32.
        dimension: D, the length of a feature vector.
    """

    name: str
    output_MK: Floats
    value: float
    low: float
    high: float
    loss: float
    settings: Mapping[str, float]
    images_per_second: float
    measured: str
    megabytes: float
    dimension: int


@dataclass(frozen=True)
class Standing:
    """A candidate among the others.

    Attributes:
        behind: how far its metric is below that of the best candidate, and at most, at the confidence of all
            candidates together.
        as_good: whether it is not worse than the best by more than the margin; `too few` images to tell.
        more: for `too few`, about how many more images would tell.
        on_front: whether no other candidate is at least as good and as fast, and better in one of the two.
    """

    probed: Probed
    behind: tuple[float, float]
    as_good: AsGood
    more: int
    on_front: bool


def rank(candidates: Sequence[Probed], held: Held) -> list[Standing]:
    """The best first; among equally good ones the lowest loss first.

    Each is compared with the best one. The best one was chosen because it looks best, but by that the others only look
    worse than they are (Hsu 1984, "multiple comparisons with the best").
    """
    ordered = sorted(candidates, key=lambda one: (-one.value, one.loss))
    on_front = front([(one.value, one.images_per_second) for one in ordered])
    found = _compared(ordered, held)
    return [
        Standing(one, *found.get(one.name, ((0.0, 0.0), "best", 0)), ahead)
        for one, ahead in zip(ordered, on_front, strict=True)
    ]


def _compared(ordered: Sequence[Probed], held: Held) -> dict[str, tuple[tuple[float, float], AsGood, int]]:
    """Name -> how far it is behind, whether it is as good, and how many more images would tell. By Holm's method
    (1979): what is shown to be as good makes the test of the others less strict."""
    found: dict[str, tuple[tuple[float, float], AsGood, int]] = {}
    left = list(ordered[1:])
    while left:
        level = (1 - held.confidence) / len(left)
        tests = {one.name: held.compare(ordered[0].output_MK, one.output_MK, level) for one in left}
        says = {name: outcome(test, held.margin) for name, test in tests.items()}
        for name, test in tests.items():
            found[name] = (-test.difference, -test.low), _as_good(says[name]), says[name].more
        remaining = [one for one in left if found[one.name][1] != "yes"]
        if len(remaining) == len(left):
            break
        left = remaining
    return found


def _as_good(said: Outcome) -> AsGood:
    return "yes" if said.says in ("better", "not worse") else "no" if said.says == "worse" else "too few"


def fastest_as_good(standings: Sequence[Standing]) -> Standing:
    """The fastest candidate that is shown to be as good as the best one, which may be that one itself."""
    as_good = [one for one in standings if one.as_good in ("best", "yes")]
    return max(as_good, key=lambda one: one.probed.images_per_second)


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of several points no other point dominates; larger is better in both dimensions."""
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b
