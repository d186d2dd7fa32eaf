"""How often a paired test finds a difference between models that are equally good.

Both models see the same N images of U units and share a part of their errors; the rest is their own. Their true metrics
are equal, so a one-sided test at 5 % may say in 5 % of the runs that the second is better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.data.task import METRICS, Task
from graft.tasks.common.scoring.paired import compare

from .intervals import SETTINGS, Floats, Ints, Setting, outputs, targets
from .row import Row, noise

SIGNIFICANCE = 0.05

ALLOWED = 0.065
"""The rate that passes: the tests are approximations."""


def two_models(
    rng: np.random.Generator, target: npt.NDArray[Any], unit_N: Ints, grouped: bool, task: Task
) -> tuple[Floats, Floats]:
    """Outputs of two models, each half a model of its own and half one that they share."""
    shared, *own = (outputs(rng, target, unit_N, grouped, task) for _ in range(3))
    if task == "regression":
        return (own[0] + shared) / 2, (own[1] + shared) / 2
    first, second = (_blend(shared, each, task) for each in own)
    return first, second


def _blend(first: Floats, second: Floats, task: Task) -> Floats:
    """The mean of the logits."""
    yes_NK = np.sqrt(first * second)
    no_NK = np.sqrt((1 - first) * (1 - second)) if task == "multilabel" else yes_NK.sum(axis=1, keepdims=True) - yes_NK
    return yes_NK / (yes_NK + no_NK)


def simulate(runs: int, setting: Setting, task: Task, seed: int = 0) -> dict[str, float]:
    """Metric -> the share of runs with p at most `SIGNIFICANCE`."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(setting.units), setting.images)
    found = dict.fromkeys((metric.key for metric in METRICS[task]), 0)
    for _ in range(runs):
        target = targets(rng, unit_N, setting.grouped, task)
        first, second = two_models(rng, target, unit_N, setting.grouped, task)
        for key in found:
            found[key] += compare(first, second, target, unit_N, task, metric=key).p_better <= SIGNIFICANCE
    return {key: count / runs for key, count in found.items()}


def long_run(runs: int) -> list[Row]:
    """Every metric of every task, in every setting."""
    rows: list[Row] = []
    for task, metrics in METRICS.items():
        titles = {metric.key: metric.title for metric in metrics}
        for setting in SETTINGS:
            for key, rate in simulate(runs, setting, task).items():
                statement = f"p at most 0.05 for an equal model, {titles[key]} ({task}), {setting.name}"
                rows.append(Row(statement, SIGNIFICANCE, rate, (0.0, ALLOWED + noise(ALLOWED, runs, 2.0)), runs))
    return rows
