"""Which strength of the path to take: the one that validation images prefer. N images, D features, K classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..common.heads import softmax
from ..common.logistic import Step
from ..common.metrics import accuracy, log_loss

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Validated:
    """A step of the path and what validation says of it."""

    step: Step
    val_loss: float
    val_accuracy: float

    def row(self) -> dict[str, float]:
        return {
            "l2": self.step.l2,
            "log10_l2": float(np.log10(self.step.l2)),
            "train_loss": self.step.train_loss,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "iterations": self.step.iterations,
            "converged": int(self.step.converged),
        }


def search(
    steps: Iterator[Step],
    x_ND: npt.NDArray[np.float32],
    y_N: Ints,
    weight_N: Floats,
    by: str,
    patience: int,
    each: Callable[[], None],
) -> tuple[list[Validated], int]:
    """Walks the path until validation has not improved for `patience` strengths; x, y and weight are validation's.

    Returns:
        What was visited, and the place of the best: least log loss, or highest accuracy (ties to the least log loss).
    """
    visited: list[Validated] = []
    best = 0
    for step in steps:
        p_NK = softmax(x_ND @ step.weight_KD.T + step.bias_K)
        visited.append(Validated(step, log_loss(p_NK, y_N, weight_N), accuracy(p_NK, y_N)))
        each()
        if _score(visited[-1], by) > _score(visited[best], by):
            best = len(visited) - 1
        if len(visited) - 1 - best >= patience:
            break
    return visited, best


def _score(result: Validated, by: str) -> tuple[float, float]:
    return (result.val_accuracy if by == "accuracy" else 0.0, -result.val_loss)
