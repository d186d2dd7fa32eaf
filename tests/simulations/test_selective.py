"""A guarantee of `head.max_error` with 90 % confidence is broken in at most 10 % of draws.

With 200 runs, three standard deviations of a rate of 10 % are 6.4 %.
"""

import pytest

from bench.simulations.selective import kept, simulate

RUNS = 200
MOST = 0.1 + 3 * (0.1 * 0.9 / RUNS) ** 0.5


@pytest.mark.parametrize(("groups", "icc"), [(40, 0.3), (100, 0.3), (100, 0.9)])
def test_groups_of_20_images_break_the_guarantee_as_seldom_as_it_says(groups, icc):
    broken = simulate(RUNS, groups, 20, icc, seed=1)
    assert broken["by_unit"] <= MOST
    assert broken["by_image"] > MOST  # the setting is one where counting images one by one fails


def test_independent_images_break_the_guarantee_as_seldom_as_it_says():
    broken = simulate(RUNS, 300, 1, 0.0, seed=1)
    assert 0 < broken["by_unit"] <= MOST
    assert broken["by_unit"] == broken["by_image"]


def test_a_head_with_half_of_the_allowed_errors_mostly_gets_a_guarantee():
    assert kept(RUNS, 300, seed=1) > 0.8
