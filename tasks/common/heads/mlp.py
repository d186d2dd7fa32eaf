"""The head with one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..data.manifest import Task
from .base import Double, Head, Single, link


@dataclass(frozen=True)
class MlpHead(Head):
    """A linear head on hidden units: relu(x @ hidden_weight.T + hidden_bias) @ weight.T + bias.

    Attributes:
        hidden_weight, hidden_bias: float32, (H, D) and (H,), for features as the backbone gives them.
        weight, bias: float32, (K, H) and (K,); (1, H) and (1,) for regression.
    """

    hidden_weight: Single
    hidden_bias: Single
    weight: Single
    bias: Single
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "mlp"
    arrays: ClassVar[tuple[str, ...]] = ("hidden_weight", "hidden_bias", "weight", "bias")

    def _output(self, x_BD: Single) -> Double:
        hidden_BH = np.maximum(x_BD @ self.hidden_weight.T + self.hidden_bias, 0)
        return link(hidden_BH.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias, self.task)
