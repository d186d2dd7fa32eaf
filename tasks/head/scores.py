"""Scores of a candidate on held-out rows. M rows, K classes; outputs are (M, K) probabilities or (M, 1) numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..common.data.manifest import Task
from ..common.heads.base import decide
from ..common.scoring.main_metric import loss as loss_of
from .estimator import Array, Double

Select = Literal["log_loss", "accuracy", "rmse"]


@dataclass(frozen=True)
class Score:
    """Attributes:
    loss: of the task, see `main_metric.loss`; infinite where that is not finite.
    accuracy: share of rows that are completely right; NaN for numbers.
    """

    loss: float
    accuracy: float

    @classmethod
    def of(cls, output: Double, target: Array, weight_M: Double, task: Task) -> Score:
        right_M = decide(output, task) == target
        if task == "multilabel":
            right_M = right_M.all(axis=1)
        accuracy = float("nan") if task == "regression" else float(right_M.mean())
        loss = loss_of(output, target, task, weight_M)
        return cls(loss if np.isfinite(loss) else float("inf"), accuracy)

    def better_than(self, other: Score, select: Select) -> bool:
        """By accuracy, with ties broken by the loss, or by the loss alone; an infinite loss is the worst."""
        if np.isinf(self.loss) or np.isinf(other.loss):
            return self.loss < other.loss
        if select == "accuracy" and self.accuracy != other.accuracy:
            return self.accuracy > other.accuracy
        return self.loss < other.loss
