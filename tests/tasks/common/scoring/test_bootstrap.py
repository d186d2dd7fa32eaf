import numpy as np
import pytest

from tasks.common.scoring import bootstrap


@pytest.mark.parametrize("right", [1, 10, 37, 49])
def test_the_interval_contains_the_accuracy(right):
    correct = np.arange(50) < right
    low, high = bootstrap.bootstrap_interval(correct, 0.95, 2000, seed=0)
    assert low <= right / 50 <= high
    assert low < high


def test_the_interval_agrees_with_resampling_image_by_image():
    correct = np.arange(80) < 60
    rng = np.random.default_rng(1)
    means = correct[rng.integers(0, 80, (20_000, 80))].mean(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap.bootstrap_interval(correct, 0.95, 20_000, seed=0) == pytest.approx(expected, abs=0.013)


def test_more_confidence_is_a_wider_interval():
    correct = np.arange(50) < 30
    low, high = bootstrap.bootstrap_interval(correct, 0.8, 5000, seed=0)
    lower, higher = bootstrap.bootstrap_interval(correct, 0.99, 5000, seed=0)
    assert lower < low
    assert high < higher


def test_the_interval_is_the_same_for_the_same_seed():
    correct = np.arange(50) < 30
    assert bootstrap.bootstrap_interval(correct, 0.9, 500, 3) == bootstrap.bootstrap_interval(correct, 0.9, 500, 3)


@pytest.mark.parametrize(("right", "expected"), [(10, (0.722467, 1.0)), (0, (0.0, 0.277533))])
def test_ten_of_ten_or_none_has_wilsons_interval(right, expected):
    correct = np.arange(10) < right
    assert bootstrap.bootstrap_interval(correct, 0.95, 100, 0) == pytest.approx(expected, abs=1e-5)
