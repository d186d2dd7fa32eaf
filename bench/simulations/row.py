"""A line of the table: a statement, what it promises, and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A rate that was promised, against the rate of the simulated runs.

    Attributes:
        statement: what is promised, and in what setting.
        promised: the rate, from 0 to 1.
        measured: the rate among the runs.
        tolerance: the least and the largest rate that pass.
        runs: how many runs were simulated.
    """

    statement: str
    promised: float
    measured: float
    tolerance: tuple[float, float]
    runs: int

    @property
    def passes(self) -> bool:
        low, high = self.tolerance
        return low <= self.measured <= high


def noise(rate: float, runs: int, deviations: float = 3.0) -> float:
    """How far chance alone moves a measured rate: this many standard deviations of a share of `runs`."""
    return deviations * math.sqrt(rate * (1 - rate) / runs)
