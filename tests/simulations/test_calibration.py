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


def test_calibration_keeps_the_balanced_accuracy_of_the_head(found):
    assert found["balanced_accuracy"] == pytest.approx(found["balanced_accuracy_head"], abs=1e-9)
    assert found["balanced_accuracy"] > found["balanced_accuracy_plain"] + 0.1
