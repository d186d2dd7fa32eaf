"""The head of a subspace: what a low-rank model of good patches does not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..data.task import Task
from .anomaly import AnomalyHead
from .base import Double, Single


@dataclass(frozen=True)
class SubspaceHead(AnomalyHead):
    """A patch scores the length of (x - mean) @ turn: its part outside the subspace in which good patches vary most, of
    all patches together (a residual of principal components). E = C - rank.

    Attributes:
        turn: float32 (C, E), the axes outside the subspace.
        mean: float32 (C,).
    """

    turn: Single
    mean: Single
    good: Double
    share: Double
    channels: int
    height: int
    width: int
    top: int
    classes: list[str]
    task: Task = "anomaly"
    kind: ClassVar[str] = "subspace"
    arrays: ClassVar[tuple[str, ...]] = ("turn", "mean", "good", "share")

    def distances(self, x_PC: Single) -> Single:
        outside_PE = (x_PC - self.mean) @ self.turn
        return np.sqrt(np.einsum("pe,pe->p", outside_PE, outside_PE))
