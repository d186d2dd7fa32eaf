"""Whether chosen labels help more than random ones, on the labels that are there.

The labels of the training images are hidden and given back in rounds, once in the order of `auto` and once at random.
After each round a model learns from what has a label, and is scored on validation; test images are not used. S sizes,
E seeds, V validation images, B resamples, K classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import MAIN, Task
from ..common.scoring.main_metric import main_metrics
from ..common.scoring.resampling import percentile_ends, resampled_times
from ..common.solvers.power_law import power_law
from .probe import disagreement, learn, principal
from .strategies import Pool, Strategy, axes_of, choose

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

MOST, MOST_SCORED = 1500, 1000
"""Training and validation images at most, whole units."""

ROUNDS = 8
"""Sizes, in equal ratios."""

SEEDS = 3

RESAMPLES = 100
"""Of the validation images, whole units, and the seeds."""

CONFIDENCE = 0.95

ASKED, ENOUGH = 10, 60
"""Validation and training images that it needs."""

SURE = 0.05
"""Of the mean variance, the minimum for each size."""

TASKS: tuple[Task, ...] = ("classification", "multilabel", "regression")


@dataclass(frozen=True)
class Gain:
    """What more labels bring, of the main metric: the estimate and both ends of its interval."""

    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Simulation:
    """Attributes:
    task: whose main metric is meant.
    labels: number of training images now.
    sizes: number of labels after each round.
    auto, random: the metric of each size, the mean of all seeds.
    ahead, low, high: by how much `auto` is better, the mean of all sizes, and its interval.
    laws: for each of both a, b and c of the law of its errors, the estimate and then those of the resamples.
    reason: why there is no simulation; empty if there is one.
    """

    task: Task
    labels: int
    sizes: list[int] = field(default_factory=list)
    auto: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    ahead: float = 0.0
    low: float = 0.0
    high: float = 0.0
    laws: dict[str, list[list[float]]] = field(default_factory=dict)
    reason: str = ""

    @property
    def better(self) -> bool:
        """Whether `auto` may be used: it is no worse than random, or there is nothing to judge it by."""
        return bool(self.reason) or self.ahead >= 0

    def more(self, labels: int, by: str = "auto") -> Gain | None:
        """What so many more labels bring, chosen by `auto` or `random`."""
        if self.reason:
            return None
        _, b_B, c_B = np.array(self.laws[by]).T
        gain_B = b_B * (float(self.labels) ** -c_B - float(self.labels + labels) ** -c_B)
        low, high = percentile_ends(gain_B[1:], CONFIDENCE, RESAMPLES)
        return Gain(float(gain_B[0]), low, high)

    def facts(self) -> dict[str, Any]:
        """As JSON; `Simulation(**facts)` is this one again."""
        return asdict(self)


def simulate(pack: FeatureSet, unit_N: Rows, seed: int = 0) -> Simulation:
    """Args:
    unit_N: of all images; units are drawn whole, and one image of each is asked about first.
    """
    rng = np.random.default_rng(seed)
    train, val = pack.rows("train"), pack.rows("val")
    reason = _impossible(pack, train, val)
    if reason:
        return Simulation(pack.task, len(train), reason=reason)
    replay = _Replay.of(pack, _some(train, unit_N, MOST, rng), _some(val, unit_N, MOST_SCORED, rng), unit_N)
    sizes = _sizes(replay.count, len(pack.classes))
    times_BV = np.concatenate([np.ones((1, len(replay.val_unit_V)), np.int32), *_resamples(replay, seed)])
    errors: dict[str, Floats] = {}
    both: tuple[Strategy, ...] = ("auto", "random")
    with progress("label: simulation", len(both) * SEEDS * len(sizes), "rounds") as bar:
        for strategy in both:
            found = np.empty((SEEDS, len(sizes), len(times_BV)))
            for number in range(SEEDS):
                for place, output_VK in enumerate(replay.outputs(strategy, sizes, 1000 * (seed + number))):
                    found[number, place] = 1 - main_metrics(output_VK, replay.val_target, pack.task, times_BV)
                    bar.add()
            errors[strategy] = _over_seeds(found, rng)
    return _conclude(errors, sizes, pack.task, len(train))


def _impossible(pack: FeatureSet, train: Rows, val: Rows) -> str:
    if pack.task not in TASKS:
        return f"there is none for the task {pack.task}"
    if len(val) < ASKED:
        return f"there are only {len(val)} validation images, and it needs {ASKED}"
    needed = max(ENOUGH, 6 * len(pack.classes))
    if len(train) < needed:
        return f"there are only {len(train)} training images, and it needs {needed}"
    return ""


def _some(rows: Rows, unit_N: Rows, most: int, rng: np.random.Generator) -> Rows:
    """All of the rows, or whole units of them, up to `most` images."""
    if len(rows) <= most:
        return rows
    unit = np.unique(unit_N[rows], return_inverse=True)[1]
    place_U = rng.permutation(int(unit.max()) + 1)
    order = np.argsort(place_U[unit], kind="stable")
    return np.sort(rows[order[:most]])


def _sizes(count: int, k: int) -> list[int]:
    """Up to half of the images: where most are labelled, nothing is left to choose from."""
    first = max(2 * k, 10)
    return sorted({round(size) for size in np.geomspace(first, max(count // 2, first + 1), ROUNDS)})


def _resamples(replay: _Replay, seed: int) -> list[npt.NDArray[np.int32]]:
    return list(resampled_times(replay.val_unit_V, RESAMPLES, seed))


@dataclass(frozen=True)
class _Replay:
    """Attributes:
    x_NA: training and then validation images in the axes that a model learns from.
    choose_NR: the training images in those that the strategies cluster in.
    target: of the training images; unit_N: their units; val_target, val_unit_V: of the validation images.
    """

    x_NA: Singles
    choose_NR: Singles
    target: npt.NDArray[Any]
    unit_N: Rows
    val_target: npt.NDArray[Any]
    val_unit_V: Rows
    task: Task
    classes: int

    @classmethod
    def of(cls, pack: FeatureSet, train: Rows, val: Rows, unit_N: Rows) -> _Replay:
        features_ND = pack.features(np.concatenate([train, val]))
        own_ND = features_ND[: len(train)]
        axes = axes_of(own_ND, np.random.default_rng(0))
        units = [np.unique(unit_N[rows], return_inverse=True)[1].astype(np.int64) for rows in (train, val)]
        return cls(
            principal(features_ND),
            axes(own_ND),
            pack.targets(train),
            units[0],
            pack.targets(val),
            units[1],
            pack.task,
            len(pack.classes),
        )

    @property
    def count(self) -> int:
        return len(self.target)

    def outputs(self, strategy: Strategy, sizes: list[int], seed: int) -> list[Floats]:
        """The output on validation, (V, K), after each round."""
        found, labelled, output_NK = [], np.empty(0, np.int64), None
        for size in sizes:
            rest = np.setdiff1d(np.arange(self.count), labelled)
            pool = self._pool(rest, labelled, output_NK, seed + len(labelled))
            labelled = np.concatenate([labelled, rest[choose(pool, size - len(labelled), strategy).rows]])
            output_NK = self._learned(labelled)
            found.append(output_NK[self.count :])
        return found

    def _pool(self, rest: Rows, labelled: Rows, output_NK: Floats | None, seed: int) -> Pool:
        codes = self.target if self.task == "classification" else np.zeros(self.count, np.int64)
        unsure_P = None
        if self.task == "regression" and output_NK is not None:
            unsure_P = disagreement(self.x_NA[labelled], self.target[labelled], self.x_NA[rest], seed)
        return Pool(
            self.choose_NR[rest],
            self.unit_N[rest],
            None if output_NK is None else output_NK[rest],
            self.choose_NR[labelled],
            codes[labelled],
            self.classes,
            seed,
            task=self.task,
            unsure_P=unsure_P,
        )

    def _learned(self, labelled: Rows) -> Floats:
        """The output of a model of the labelled images for all images."""
        return learn(self.x_NA[labelled], self.target[labelled], self.task, self.classes)(self.x_NA)


def _over_seeds(error_ESB: Floats, rng: np.random.Generator) -> Floats:
    """(S, 1 + B): the mean of all seeds, then of resampled seeds for each resample."""
    seeds, _, resamples = error_ESB.shape
    drawn_BE = rng.integers(seeds, size=(resamples, seeds))
    drawn_BE[0] = np.arange(seeds)
    return np.stack([error_ESB[drawn_BE[b], :, b].mean(axis=0) for b in range(resamples)], axis=1)


def _conclude(errors: dict[str, Floats], sizes: list[int], task: Task, labels: int) -> Simulation:
    known_B = np.isfinite(np.concatenate(list(errors.values()))).all(axis=0)
    if not known_B[0] or known_B.sum() < RESAMPLES // 2:
        return Simulation(task, labels, reason="validation has too few labels of each kind")
    auto_SB, random_SB = errors["auto"][:, known_B], errors["random"][:, known_B]
    ahead_B = (random_SB - auto_SB).mean(axis=0)
    low, high = percentile_ends(ahead_B[1:], CONFIDENCE, RESAMPLES)
    return Simulation(
        task,
        labels,
        sizes,
        [float(1 - error) for error in auto_SB[:, 0]],
        [float(1 - error) for error in random_SB[:, 0]],
        float(ahead_B[0]),
        low,
        high,
        {"auto": _law(sizes, auto_SB), "random": _law(sizes, random_SB)},
    )


def _law(sizes: list[int], error_SB: Floats) -> list[list[float]]:
    spread_S = error_SB[:, 1:].var(axis=1)
    weight_S = 1 / np.maximum(spread_S, max(SURE * float(spread_S.mean()), 1e-12))
    return np.stack(power_law(np.array(sizes, np.float64), error_SB, weight_S), axis=1).tolist()


def in_words(found: Simulation, labels: int) -> str:
    """What so many more labels would bring: "with 100 more labels, about +2.1 points of accuracy"."""
    gain = found.more(labels, "auto" if found.better else "random")
    if gain is None:
        return f"no forecast of what labels bring: {found.reason}"
    metric = MAIN[found.task]
    unit, scale = (" points", 100) if metric.percent else ("", 1)
    digits = 1 if metric.percent else 3

    def number(value: float) -> str:
        return f"{scale * value:+.{digits}f}"

    how = "chosen, not random" if found.better else "at random"
    return (
        f"with {labels:,} more labels, about {number(gain.gain)}{unit} of {metric.title} "
        f"({number(gain.low)} to {number(gain.high)}); {how}"
    )
