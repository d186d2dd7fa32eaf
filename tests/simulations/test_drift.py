"""Drift is reported of images that are alike in at most 5 % of the comparisons, also with groups.

With 80 runs, three standard deviations of a rate of 5 % are 7.3 %.
"""

from bench.simulations.drift import SIGNIFICANCE, Setting, simulate

RUNS = 80
MOST = SIGNIFICANCE + 3 * (SIGNIFICANCE * (1 - SIGNIFICANCE) / RUNS) ** 0.5


def test_images_that_are_alike_are_reported_as_seldom_as_asked():
    assert simulate(RUNS, Setting(), seed=1)["by_unit"] <= MOST


def test_groups_are_reported_as_seldom_as_asked_where_counting_images_is_wrong():
    found = simulate(RUNS, Setting(40, 20, 5, 0.3), seed=1)

    assert found["by_unit"] <= MOST
    assert found["by_image"] > MOST


def test_a_shift_is_reported():
    assert simulate(20, Setting(shift=2.0), seed=1)["by_unit"] >= 0.8
