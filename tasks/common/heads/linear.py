"""The linear head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..data.manifest import Task
from .base import Double, Head, Single, link


@dataclass(frozen=True)
class LinearHead(Head):
    """x @ weight.T + bias are the logits of softmax, or of sigmoids for several classes per image, or the number.

    Attributes:
        weight: float32, shape (K, D), for features as the backbone gives them (standardisation is folded in);
            (1, D) for regression.
        bias: float32, shape (K,), or (1,) for regression.
        classes: the K labels in the order of the rows.
    """

    weight: Single
    bias: Single
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "linear"
    arrays: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def _output(self, x_BD: Single) -> Double:
        return link(x_BD.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias, self.task)
