"""The threshold of good images."""

from __future__ import annotations

import numpy as np
import pytest

from graft.tasks.common.scoring.false_alarms import false_alarm_limit, least_images


def limit(n: int, **changed):
    score_N = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    return false_alarm_limit(score_N, changed.pop("unit_N", np.arange(n)), 0.05, 0.9)


def test_so_many_good_images_bound_five_percent():
    assert least_images(0.05, 0.9) == (45, 19)


@pytest.mark.parametrize(
    ("n", "above", "guarantee"),
    [(500, 18, "bound"), (77, 1, "bound"), (45, 0, "bound"), (44, 1, "expected"), (19, 0, "expected"), (18, 0, "none")],
)
def test_the_threshold_is_exceeded_by_as_many_as_the_binomial_allows(n, above, guarantee):
    found = limit(n)
    assert (n - found.threshold, found.guarantee) == (above, guarantee)


def test_images_of_a_group_do_not_count_as_independent():
    assert limit(80, unit_N=np.arange(80) // 4).guarantee == "expected"
    assert limit(40, unit_N=np.arange(40) // 4).guarantee == "none"


def test_equal_scores_are_all_below_the_threshold():
    assert false_alarm_limit(np.zeros(60), np.arange(60), 0.05, 0.9).threshold == 0.0
