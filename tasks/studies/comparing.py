"""Training methods compared at growing numbers of images. V evaluated images, K classes, B resamples, E seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..common.data.task import MAIN, Task
from ..common.scoring.main_metric import main_metrics

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
"""Bootstrap resamples of the evaluated images, by whole groups, and of the seeds (Efron 1979)."""

TITLES = {
    "head": "frozen backbone, new head",
    "last_stage": "last stage trained",
    "all": "all layers trained",
    "scratch": "from scratch",
}
"""Method -> its name in words, in the order of presentation."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        share: of the training images that it used.
        images: the number of these images.
        seen: training images times epochs; 0 for a head on features.
        seconds: of this training, starting from cached features but without decoded images.
        output: (V, K) probabilities or (V, 1) numbers for the evaluated images.
    """

    method: str
    share: float
    seed: int
    images: int
    seen: int
    epochs: int
    seconds: float
    output: Floats


@dataclass(frozen=True)
class Point:
    """A method at a size: the mean over seeds, with an interval over images and seeds together.

    Attributes:
        gain: over the frozen head at the same size, with its interval; None without a head.
    """

    method: str
    share: float
    images: int
    value: float
    low: float
    high: float
    seeds: int
    seconds: float
    seen: int
    epochs: float
    gain: tuple[float, float, float] | None

    @property
    def told_apart(self) -> int:
        """1 if it is significantly better than the head, -1 if significantly worse, otherwise 0."""
        if self.gain is None:
            return 0
        _, low, high = self.gain
        return 1 if low > 0 else -1 if high < 0 else 0


def points(
    cells: Sequence[Cell], target: npt.NDArray[np.float64], unit_V: npt.NDArray[np.int64], task: Task, confidence: float
) -> list[Point]:
    """One point per method and size, methods in the order of `TITLES`, sizes growing.

    All share the same resamples, so that variation that two methods have in common cancels in their difference.

    Args:
        unit_V: the group of each evaluated image.
    """
    rng = np.random.default_rng(0)
    units = int(unit_V.max()) + 1
    drawn_BU = rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES).astype(np.float64)
    times_BV = np.vstack([np.ones(len(unit_V)), drawn_BU[:, unit_V]])
    seeds = sorted({cell.seed for cell in cells})
    turn_BE = rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    metrics: dict[tuple[str, float], Floats] = {}
    found: list[Point] = []
    for method in [name for name in TITLES if any(cell.method == name for cell in cells)]:
        for share in sorted({cell.share for cell in cells if cell.method == method}):
            mine = [cell for cell in cells if (cell.method, cell.share) == (method, share)]
            each = np.stack([main_metrics(cell.output, target, task, times_BV) for cell in mine])
            metrics[method, share] = _over_seeds(each, turn_BE)
            found.append(_point(mine, metrics[method, share], metrics.get(("head", share)), confidence))
    return found


def _over_seeds(metric_EB: Floats, turn_BE: npt.NDArray[np.int64]) -> Floats:
    """(1 + B,): the mean over all seeds, then over each resample's seeds."""
    turn_BE = turn_BE % len(metric_EB)  # the other seeds replace a missing cell
    resampled = np.take_along_axis(metric_EB[:, 1:].T, turn_BE, axis=1).mean(axis=1)
    return np.concatenate([[metric_EB[:, 0].mean()], resampled])


def _point(cells: Sequence[Cell], metric_B: Floats, head_B: Floats | None, confidence: float) -> Point:
    value, low, high = _interval(metric_B, confidence)
    first = cells[0]
    return Point(
        method=first.method,
        share=first.share,
        images=round(float(np.mean([cell.images for cell in cells]))),
        value=value,
        low=low,
        high=high,
        seeds=len(cells),
        seconds=float(np.mean([cell.seconds for cell in cells])),
        seen=round(float(np.mean([cell.seen for cell in cells]))),
        epochs=float(np.mean([cell.epochs for cell in cells])),
        gain=None if head_B is None else _interval(metric_B - head_B, confidence),
    )


def _interval(metric_B: Floats, confidence: float) -> tuple[float, float, float]:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(metric_B[1:], [tail, 1 - tail])
    return float(metric_B[0]), float(low), float(high)


def crossings(found: Sequence[Point], task: Task) -> list[str]:
    """A sentence per method other than the frozen head: the number of images from which on it is better, if any."""
    methods = list(dict.fromkeys(point.method for point in found if point.method != "head"))
    lines = [[point for point in found if point.method == method and point.gain is not None] for method in methods]
    return [_crossing(line, found, task) for line in lines if line]


def _crossing(line: Sequence[Point], found: Sequence[Point], task: Task) -> str:
    text, last = MAIN[task].text, line[-1]
    head = next(point for point in found if point.method == "head" and point.share == last.share)
    title = TITLES[last.method][0].upper() + TITLES[last.method][1:]
    values = f"{text(last.value)} against {text(head.value)} at {last.images:,} images"
    states = [point.told_apart for point in line]
    if all(state > 0 for state in states):
        return f"{title} is better than the frozen head from {line[0].images:,} images on ({values})."
    if states[-1] > 0:
        if any(point.gain is not None and point.gain[0] <= 0 for point in line):
            return f"{title} crosses the frozen head at about {_meet(line):,} images and is then better ({values})."
        sure = next(point.images for point in line if point.told_apart > 0)
        return f"{title} is better than the frozen head from {sure:,} images on, not significantly before ({values})."
    if all(state < 0 for state in states):
        return f"{title} stays below the frozen head up to {last.images:,} images ({values})."
    if states[-1] < 0:
        return f"{title} is below the frozen head at {last.images:,} images ({values})."
    return f"{title} cannot be told from the frozen head at {last.images:,} images ({values})."


def _meet(line: Sequence[Point]) -> int:
    """The number of images at which the gain last crosses zero, interpolated on a logarithmic axis."""
    gains = [point.gain[0] for point in line if point.gain is not None]
    a = max(place for place, gain in enumerate(gains[:-1]) if gain <= 0)
    at = -gains[a] / (gains[a + 1] - gains[a])
    x = np.log([line[a].images, line[a + 1].images])
    return round(float(np.exp(x[0] + at * (x[1] - x[0]))))


def advice(found: Sequence[Point], task: Task, difference: Callable[[str, str, float], float]) -> str:
    """Which method to use for all images: the cheapest that is not significantly worse than the best.

    Args:
        difference: (better, worse, share) -> the lower end of the interval of their difference.
    """
    most = max(point.share for point in found)
    last = [point for point in found if point.share == most]
    best = max(last, key=lambda point: point.value)
    as_good = [point for point in last if point is best or difference(best.method, point.method, most) <= 0]
    choice = min(as_good, key=lambda point: point.seconds)
    text = MAIN[task].text
    recommended = (
        f"Use `{choice.method}` ({TITLES[choice.method]}): {text(choice.value)} at {choice.images:,} images, for "
        f"{minutes(choice.seconds)}"
    )
    if choice is best:
        return f"{recommended}; no other method is better."
    other = f"`{best.method}` ({text(best.value)}, {minutes(best.seconds)})"
    return f"{recommended}; {other} is not significantly better."


def lowest_difference(
    cells: Sequence[Cell],
    target: npt.NDArray[np.float64],
    unit_V: npt.NDArray[np.int64],
    task: Task,
    confidence: float,
) -> Callable[[str, str, float], float]:
    """For `advice`: two methods compared on the same images."""

    def difference(better: str, worse: str, share: float) -> float:
        renamed = {better: "all", worse: "head"}  # `points` compares with the head
        two = [
            replace(cell, method=renamed[cell.method])
            for cell in cells
            if cell.share == share and cell.method in renamed
        ]
        gain = points(two, target, unit_V, task, confidence)[-1].gain
        return gain[1] if gain is not None else 0.0

    return difference


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
