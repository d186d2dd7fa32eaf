"""Points that cover many."""

from __future__ import annotations

import numpy as np

from graft.tasks.common.solvers import coreset
from graft.tasks.common.solvers.coreset import farthest_first


def one_at_a_time(x_NE: np.ndarray, size: int) -> list[int]:
    far_N, chosen = ((x_NE - x_NE.mean(axis=0)) ** 2).sum(axis=1), []
    for _ in range(size):
        chosen.append(int(far_N.argmax()))
        far_N = np.minimum(far_N, ((x_NE - x_NE[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def test_rounds_choose_the_points_that_one_at_a_time_chooses(monkeypatch):
    monkeypatch.setattr(coreset, "CANDIDATES", 20)
    x_NE = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    assert farthest_first(x_NE, 60).tolist() == one_at_a_time(x_NE.astype(np.float64), 60)


def test_copies_are_not_chosen_twice():
    x_NE = np.repeat(np.random.default_rng(0).normal(size=(7, 3)), 5, axis=0).astype(np.float32)
    chosen = farthest_first(x_NE, 30)
    assert len(np.unique(x_NE[chosen], axis=0)) == len(chosen) == 7


def test_of_points_that_are_all_the_same_one_is_chosen():
    assert farthest_first(np.ones((9, 4), np.float32), 5).tolist() == [0]
