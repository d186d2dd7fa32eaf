"""A rare class of 5 % and a head with `class_weight: balanced`."""

import pytest

from bench.simulations.calibration import simulate


@pytest.fixture(scope="module")
def found():
    return simulate(runs=20, share=0.05, images=600, seed=0)


def test_the_mean_probability_of_the_rare_class_is_within_002_of_its_share(found):
    """The standard error of the mean over 20 runs is 0.003."""
    assert found["mean_p"] == pytest.approx(0.05, abs=0.02)
    assert found["mean_p_head"] > 0.15
    assert found["mean_p_temperature"] > 0.15


def test_calibration_does_not_lower_the_balanced_accuracy_of_the_head(found):
    """The standard error of the difference is 0.005."""
    assert found["balanced_accuracy"] > found["balanced_accuracy_head"] - 0.01
    assert found["balanced_accuracy"] > found["balanced_accuracy_plain"] + 0.1
