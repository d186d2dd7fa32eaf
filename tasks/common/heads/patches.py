"""The head of nearest patches: PatchCore (Roth et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..data.task import Task
from ..core.blocks import blocks
from .anomaly import AnomalyHead
from .base import Double, Single

PATCHES = 1024
"""Patches whose distances to the whole bank are in memory at a time."""


@dataclass(frozen=True)
class PatchesHead(AnomalyHead):
    """A patch scores its distance to the nearest patch of a bank of good ones, after (x - mean) @ turn. M patches, E
    numbers each.

    Attributes:
        bank: float16 (M, E), patches of good images, turned.
        mean: float32 (C,).
        turn: float32 (C, E).
    """

    bank: npt.NDArray[np.float16]
    mean: Single
    turn: Single
    good: Double
    share: Double
    channels: int
    height: int
    width: int
    top: int
    classes: list[str]
    task: Task = "anomaly"
    kind: ClassVar[str] = "patches"
    arrays: ClassVar[tuple[str, ...]] = ("bank", "mean", "turn", "good", "share")

    def distances(self, x_PC: Single) -> Single:
        distance_P = np.empty(len(x_PC), np.float32)
        for rows in blocks(len(x_PC), PATCHES):
            turned_PE = np.asarray((x_PC[rows] - self.mean) @ self.turn, np.float32)
            distance_P[rows] = nearest(turned_PE, *self._searched)
        return distance_P

    @cached_property
    def _searched(self) -> tuple[Single, Single]:
        return searched(self.bank)


def searched(bank_ME: npt.NDArray[np.float16]) -> tuple[Single, Single]:
    """What `nearest` needs of a bank: -2 times its transpose, (E, M), and the squared lengths, (M,)."""
    bank_ME = bank_ME.astype(np.float32)
    return np.ascontiguousarray(-2 * bank_ME.T), np.einsum("me,me->m", bank_ME, bank_ME)


def nearest(x_PE: Single, minus_two_EM: Single, square_M: Single) -> Single:
    """The distance of each patch to the nearest of the bank, (P,)."""
    product_PM = x_PE @ minus_two_EM
    product_PM += square_M
    square_P = np.einsum("pe,pe->p", x_PE, x_PE)
    return np.sqrt(np.maximum(product_PM.min(axis=1) + square_P, 0))
