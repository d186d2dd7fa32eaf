"""Training methods compared at growing numbers of images. V evaluated images, K classes, B resamples, E seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ..common.data.task import Metric
from ..common.scoring.main_metric import metrics_of
from ..common.scoring.paired import Outcome, Paired, design_effect, outcome, tango
from ..common.scoring.resampling import percentile_ends
from .held import Held

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 1000
"""Bootstrap resamples of the evaluated images, by whole units, and of the seeds (Efron 1979)."""

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


def points(cells: Sequence[Cell], judged: Held) -> list[Point]:
    """One point per method and size, methods in the order of `TITLES`, sizes growing."""
    metrics = _resampled(cells, judged)
    return [
        _point(
            [cell for cell in cells if (cell.method, cell.share) == (method, share)],
            metric_B,
            metrics.get(("head", share)),
            judged,
        )
        for (method, share), metric_B in metrics.items()
    ]


def _resampled(cells: Sequence[Cell], judged: Held) -> dict[tuple[str, float], Floats]:
    """(method, share) -> (1 + B,): the metric, then that of each resample of the units and of the seeds.

    All share the same resamples, so that variation that two methods have in common cancels in their difference.
    """
    rng = np.random.default_rng(0)
    drawn_BU = rng.multinomial(judged.units, np.full(judged.units, 1 / judged.units), size=RESAMPLES)
    times_BV = np.vstack([np.ones(len(judged.unit_M), np.int32), drawn_BU[:, judged.unit_M].astype(np.int32)])
    seeds = sorted({cell.seed for cell in cells})
    turn_BE = rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    metrics: dict[tuple[str, float], Floats] = {}
    for method in [name for name in TITLES if any(cell.method == name for cell in cells)]:
        for share in sorted({cell.share for cell in cells if cell.method == method}):
            mine = [cell for cell in cells if (cell.method, cell.share) == (method, share)]
            each = np.stack([
                metrics_of(cell.output, judged.target, judged.metric, judged.task, times_BV) for cell in mine
            ])  # fmt: skip
            metrics[method, share] = _over_seeds(each, turn_BE)
    return metrics


def _over_seeds(metric_EB: Floats, turn_BE: npt.NDArray[np.int64]) -> Floats:
    """(1 + B,): the mean over all seeds, then over each resample's seeds."""
    turn_BE = turn_BE % len(metric_EB)  # the other seeds replace a missing cell
    resampled = np.take_along_axis(metric_EB[:, 1:].T, turn_BE, axis=1).mean(axis=1)
    return np.concatenate([[metric_EB[:, 0].mean()], resampled])


def _point(cells: Sequence[Cell], metric_B: Floats, head_B: Floats | None, judged: Held) -> Point:
    value, low, high = _interval(metric_B, judged)
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
        gain=None if head_B is None else _interval(metric_B - head_B, judged),
    )


def _interval(metric_B: Floats, judged: Held) -> tuple[float, float, float]:
    return float(metric_B[0]), *percentile_ends(metric_B[1:], judged.confidence, judged.units)


def crossings(found: Sequence[Point], metric: Metric) -> list[str]:
    """A sentence per method other than the frozen head: the number of images from which on it is better, if any."""
    methods = list(dict.fromkeys(point.method for point in found if point.method != "head"))
    lines = [[point for point in found if point.method == method and point.gain is not None] for method in methods]
    return [_crossing(line, found, metric) for line in lines if line]


def _crossing(line: Sequence[Point], found: Sequence[Point], metric: Metric) -> str:
    text, last = metric.text, line[-1]
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


def as_good_as_the_best(cells: Sequence[Cell], judged: Held) -> dict[str, Outcome]:
    """Method -> whether it is not worse than the best by more than the margin, with all images; without the best.

    By Holm's method (1979) over the methods: what is shown to be as good makes the test of the others less strict.
    """
    most = max(cell.share for cell in cells)
    last = [cell for cell in cells if cell.share == most]
    metrics = {method: metric_B for (method, _), metric_B in _resampled(last, judged).items()}
    best = max(metrics, key=lambda method: float(metrics[method][0]))
    found: dict[str, Outcome] = {}
    left = [method for method in metrics if method != best]
    while left:
        level = (1 - judged.confidence) / len(left)
        for method in left:
            found[method] = outcome(_paired(last, metrics, best, method, level, judged), judged.margin)
        remaining = [method for method in left if found[method].says not in ("better", "not worse")]
        if len(remaining) == len(left):
            break
        left = remaining
    return found


def _paired(
    cells: Sequence[Cell], metrics: Mapping[str, Floats], best: str, method: str, level: float, judged: Held
) -> Paired:
    """The method against the best one, over images and seeds."""
    gain_B = metrics[method] - metrics[best]
    low, high = percentile_ends(gain_B[1:], 1 - 2 * level, judged.units)
    if judged.metric == "accuracy":
        # Where few images change, resamples of them hardly vary: never less than Tango's interval.
        least, most = _tango([cell for cell in cells if cell.method in (best, method)], best, level, judged)
        low, high = min(low, least), max(high, most)
    better, worse = ((int((sign * gain_B[1:] <= 0).sum()) + 1) / len(gain_B) for sign in (1, -1))
    return Paired(
        judged.named, float(metrics[best][0]), float(metrics[method][0]), low, high, better, worse, len(judged.target),
        judged.units, level,
    )  # fmt: skip


def _tango(cells: Sequence[Cell], best: str, level: float, judged: Held) -> tuple[float, float]:
    """Both one-sided bounds of the mean change of an image from wrong to right, over the seeds."""
    right = {
        is_best: np.mean(
            [cell.output.argmax(axis=1) == judged.target for cell in cells if (cell.method == best) == is_best], axis=0
        )
        for is_best in (True, False)
    }
    change_V = right[False] - right[True]
    effect = design_effect(change_V, judged.unit_M, judged.units)
    won, lost = float(np.maximum(change_V, 0).sum()) / effect, float(np.maximum(-change_V, 0).sum()) / effect
    z = NormalDist().inv_cdf(1 - level)
    low, high = (tango(won, lost, len(change_V) / effect, z, lower=lower) for lower in (True, False))
    return low, high


def advice(found: Sequence[Point], metric: Metric, as_good: Mapping[str, Outcome]) -> str:
    """Which method to use for all images: the cheapest that is shown to be as good as the best.

    Args:
        as_good: see `as_good_as_the_best`.
    """
    most = max(point.share for point in found)
    last = [point for point in found if point.share == most]
    best = next(point for point in last if point.method not in as_good)
    shown = [point for point in last if point is best or as_good[point.method].says in ("better", "not worse")]
    choice = min(shown, key=lambda point: point.seconds)
    sentence = (
        f"Use `{choice.method}` ({TITLES[choice.method]}): {metric.text(choice.value)} at {choice.images:,} images, "
        f"for {minutes(choice.seconds)}"
    )
    if choice is not best:
        other = f"`{best.method}` ({metric.text(best.value)}, {minutes(best.seconds)})"
        sentence += f"; it is as good as {other}, within the margin"
    cheaper = [point for point in last if point.seconds < choice.seconds]
    unclear = [point for point in cheaper if as_good[point.method].says == "too few"]
    if unclear:
        return f"{sentence}. {_unclear(unclear, metric, as_good)}"
    if choice is best:
        sentence += "; nothing cheaper is as good" if cheaper else "; no other method is better"
    return f"{sentence}."


def _unclear(found: Sequence[Point], metric: Metric, as_good: Mapping[str, Outcome]) -> str:
    names = " or ".join(f"`{point.method}` ({metric.text(point.value)}, {minutes(point.seconds)})" for point in found)
    more = max(as_good[point.method].more for point in found)
    enough = f"; about {more:,} more would" if more else ""
    return f"There are too few validation images to tell whether {names} is as good{enough}."


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
