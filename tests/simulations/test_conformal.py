"""Conformal intervals and sets with 90 % confidence, and p-values of images of the same kind.

The rate of a run varies by about 3 % with its held-out images, so three standard errors of 200 runs are 0.7 %.
"""

import pytest

from bench.simulations.conformal import intervals, sets, typicality

RUNS, NOISE = 200, 0.007


@pytest.mark.parametrize("images", [100, 300])
def test_intervals_of_independent_images_cover_as_many_as_they_say(images):
    covered = intervals(RUNS, images, 1, 0.0, seed=1)["by_unit"]
    assert 0.9 - NOISE <= covered <= 0.9 + 1 / images + NOISE


@pytest.mark.parametrize("icc", [0.3, 0.8])
def test_intervals_of_20_patients_of_20_images_cover_at_least_as_many_as_they_say(icc):
    assert intervals(RUNS, 20, 20, icc, seed=1)["by_unit"] >= 0.9 - NOISE


def test_sets_cover_as_many_as_they_say_though_the_head_is_too_sure():
    found = sets(RUNS, 150, seed=1)
    assert 0.9 - NOISE <= found["coverage"] <= 0.9 + 1 / 150 + NOISE
    assert 2 < found["size"] < 4


def test_p_values_of_images_of_the_same_kind_are_uniform_and_of_noise_small():
    found = typicality(60, 200, 1, 0.0, seed=1)
    assert found["at_most_5"] == pytest.approx(0.05, abs=0.01)
    assert found["at_most_50"] == pytest.approx(0.5, abs=0.02)
    assert found["strange_at_most_5"] > 0.95


@pytest.mark.parametrize("icc", [0.3, 0.8])
def test_new_patients_of_the_same_kind_do_not_seem_strange(icc):
    found = typicality(40, 40, 10, icc, seed=1)
    assert found["at_most_5"] <= 0.06
    assert found["at_most_50"] <= 0.52
    assert found["strange_at_most_5"] > 0.95
