"""How often a 95 % interval of a test metric contains the metric's true value.

N images of U units, K classes. The true value is that of a model on all images that there could be, here of
`POPULATION` images. Every unit has a difficulty of its own, so that the images of one are right or wrong together: the
intraclass correlation of being right is 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.data.task import METRICS, Task
from graft.tasks.common.scoring.intervals import interval
from graft.tasks.common.scoring.main_metric import metric_of

from .row import Row, noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.95

POPULATION = 400_000
"""Images in units of 20, from which the true value is computed."""

SHARES = np.array([0.5, 0.3, 0.2])
"""Of the classes: the share of images of each, or, where an image may have several, that have each."""

SIGNAL: dict[Task, tuple[float, float]] = {"classification": (1.8, 2.2), "multilabel": (1.8, 2.4)}
"""How far the logit of a present class is above that of an absent one, independent and grouped, in standard deviations
of an image's logits: about 83 % of the answers are right."""

SPREAD: dict[Task, float] = {"classification": 1.35, "multilabel": 2.0}
"""Standard deviation of a unit's share in that."""


@dataclass(frozen=True)
class Setting:
    """How the images of a run come about.

    Attributes:
        name: in words.
        units, images: how many units, and how many images each has.
        tolerance: the coverage that passes.
    """

    name: str
    units: int
    images: int
    tolerance: tuple[float, float]

    @property
    def grouped(self) -> bool:
        return self.images > 1


SETTINGS = (
    Setting("100 independent images", 100, 1, (0.93, 0.97)),
    Setting("300 independent images", 300, 1, (0.93, 0.97)),
    Setting("20 patients of 20 images", 20, 20, (0.91, 1.0)),
)


def targets(rng: np.random.Generator, unit_N: Ints, grouped: bool, task: Task) -> npt.NDArray[Any]:
    """The true class of each image, whether it has each class (N, K), or its number."""
    n = len(unit_N)
    if task == "classification":
        return rng.choice(len(SHARES), n, p=SHARES)
    if task == "multilabel":
        return (rng.random((n, len(SHARES))) < SHARES).astype(np.float64)
    return _number(rng, unit_N, grouped)


def outputs(rng: np.random.Generator, target: npt.NDArray[Any], unit_N: Ints, grouped: bool, task: Task) -> Floats:
    """Of a model: probabilities (N, K), or predictions (N, 1)."""
    if task == "classification":
        z_NK = rng.normal(size=(len(target), len(SHARES)))
        z_NK[np.arange(len(target)), target] += _signal(rng, unit_N, grouped, task)
        p_NK = np.exp(2 * z_NK)
        return p_NK / p_NK.sum(axis=1, keepdims=True)
    if task == "multilabel":
        z_NK = rng.normal(size=target.shape) + (target - 0.5) * _signal(rng, unit_N, grouped, task)[:, None]
        return 1 / (1 + np.exp(-2 * z_NK))
    return (target + 0.6 * _number(rng, unit_N, grouped))[:, None]


def _number(rng: np.random.Generator, unit_N: Ints, grouped: bool) -> Floats:
    """Of a variance of 1; with units, 0.3 of it is that of the units."""
    share = 0.3 if grouped else 0.0
    together_N = rng.normal(size=int(unit_N.max()) + 1)[unit_N]
    return np.sqrt(share) * together_N + np.sqrt(1 - share) * rng.normal(size=len(unit_N))


def _signal(rng: np.random.Generator, unit_N: Ints, grouped: bool, task: Task) -> Floats:
    if not grouped:
        return np.full(len(unit_N), SIGNAL[task][0])
    return SIGNAL[task][1] + SPREAD[task] * rng.normal(size=int(unit_N.max()) + 1)[unit_N]


def true_values(rng: np.random.Generator, grouped: bool, task: Task) -> dict[str, float]:
    """Metric -> its value on `POPULATION` images."""
    unit_N = np.repeat(np.arange(POPULATION // 20), 20)
    target = targets(rng, unit_N, grouped, task)
    output_NK = outputs(rng, target, unit_N, grouped, task)
    return {metric.key: metric_of(output_NK, target, metric.key, task) for metric in METRICS[task]}


def simulate(runs: int, setting: Setting, task: Task, seed: int = 0) -> dict[str, float]:
    """Metric -> the share of runs whose interval contains the true value."""
    metrics = [metric.key for metric in METRICS[task]]
    rng = np.random.default_rng(seed)
    truth = true_values(rng, setting.grouped, task)
    unit_N = np.repeat(np.arange(setting.units), setting.images)
    covered = dict.fromkeys(metrics, 0)
    for _ in range(runs):
        target = targets(rng, unit_N, setting.grouped, task)
        output_NK = outputs(rng, target, unit_N, setting.grouped, task)
        for key in metrics:
            low, high = interval(output_NK, target, unit_N, task, metric=key, confidence=CONFIDENCE)
            covered[key] += low <= truth[key] <= high
    return {key: count / runs for key, count in covered.items()}


def long_run(runs: int) -> list[Row]:
    """Every metric of every task, in every setting."""
    found: list[Row] = []
    for task, metrics in METRICS.items():
        titles = {metric.key: metric.title for metric in metrics}
        for setting in SETTINGS:
            for key, rate in simulate(runs, setting, task).items():
                statement = f"95 % interval of {titles[key]} ({task}), {setting.name}"
                slack = noise(CONFIDENCE, runs, 2.0)
                tolerance = max(0.0, setting.tolerance[0] - slack), min(1.0, setting.tolerance[1] + slack)
                found.append(Row(statement, CONFIDENCE, rate, tolerance, runs))
    return found
