"""What held-out rows say of a candidate. M rows, K classes; outputs are (M, K) probabilities or (M, 1) numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..common.heads import decide
from ..common.manifest import Task
from ..common.metrics import log_loss
from .estimator import Array, Double

Select = Literal["log_loss", "accuracy", "rmse"]


def loss_of(output: Double, target: Array, weight_M: Double, task: Task) -> float:
    """The mean log loss, in nats; of several classes an image the mean over the classes too; or the mean squared error,
    in the square of the target's unit."""
    if task == "classification":
        return log_loss(output, target, weight_M)
    if task == "regression":
        return float(np.average((output[:, 0] - target) ** 2, weights=weight_M))
    p_MK = np.clip(np.where(target > 0, output, 1 - output), np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(p_MK).mean(axis=1), weights=weight_M))


@dataclass(frozen=True)
class Score:
    """Attributes:
    loss: see `loss_of`; infinite where that is no number.
    accuracy: the share of rows of which all is right; NaN for numbers.
    """

    loss: float
    accuracy: float

    @classmethod
    def of(cls, output: Double, target: Array, weight_M: Double, task: Task) -> Score:
        right_M = decide(output, task) == target
        if task == "multilabel":
            right_M = right_M.all(axis=1)
        accuracy = float("nan") if task == "regression" else float(right_M.mean())
        loss = loss_of(output, target, weight_M, task)
        return cls(loss if np.isfinite(loss) else float("inf"), accuracy)

    def better_than(self, other: Score, select: Select) -> bool:
        """By the accuracy, and where it is the same the loss; or by the loss alone; an infinite loss is the worst."""
        if np.isinf(self.loss) or np.isinf(other.loss):
            return self.loss < other.loss
        if select == "accuracy" and self.accuracy != other.accuracy:
            return self.accuracy > other.accuracy
        return self.loss < other.loss
