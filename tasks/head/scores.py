"""Scores of a candidate on held-out rows. M rows, K classes; outputs are (M, K) probabilities or (M, 1) numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..common.data.task import METRICS, Task
from ..common.heads.base import decide
from ..common.scoring.main_metric import loss as loss_of
from ..common.scoring.main_metric import metric_of
from .estimator import Array, Double


@dataclass(frozen=True)
class Score:
    """Attributes:
    loss: of the task, see `main_metric.loss`; infinite where that is not finite.
    accuracy: share of rows that are completely right; NaN for numbers.
    chosen_by: the metric that candidates are chosen by, more is better; the loss with its sign changed if it is that.
    """

    loss: float
    accuracy: float
    chosen_by: float

    @classmethod
    def of(cls, output: Double, target: Array, weight_M: Double, task: Task, select: str) -> Score:
        right_M = decide(output, task) == target
        if task == "multilabel":
            right_M = right_M.all(axis=1)
        accuracy = float("nan") if task == "regression" else float(right_M.mean())
        loss = loss_of(output, target, task, weight_M)
        if not np.isfinite(loss):
            return cls(float("inf"), accuracy, float("-inf"))
        return cls(loss, accuracy, metric_of(output, target, select, task) if is_metric(select, task) else -loss)

    def better_than(self, other: Score) -> bool:
        """By the metric that candidates are chosen by, with ties broken by the loss; an infinite loss is the worst."""
        if np.isinf(self.loss) or np.isinf(other.loss) or self.chosen_by == other.chosen_by:
            return self.loss < other.loss
        return self.chosen_by > other.chosen_by


def is_metric(select: str, task: Task) -> bool:
    """Whether it is a metric of the task, of which more is better, and not the loss."""
    return select in [metric.key for metric in METRICS[task]]
