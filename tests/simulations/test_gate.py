"""The gate refuses equal models, and promotes worse ones, as rarely as it promises."""

import pytest

from bench.simulations.gate import ACCURACY, PARAMS, WORSE, Setting, ratchet, simulate
from bench.simulations.row import noise

RUNS = 150


@pytest.mark.parametrize(
    "setting", [Setting(100, 30), Setting(2, 100), Setting(10, 40, unit=20)], ids=["classes", "few", "patients"]
)
def test_an_equal_model_is_seldom_refused(setting: Setting) -> None:
    assert simulate(RUNS, setting)["refuse"] <= PARAMS.significance + noise(PARAMS.significance, RUNS)


@pytest.mark.parametrize("images", [30, 100, 1000])
def test_a_model_that_is_worse_than_the_margin_is_seldom_promoted(images: int) -> None:
    found = simulate(RUNS, Setting(2, images // 2, worse=WORSE))
    assert found["promote"] <= PARAMS.significance
    assert found["promote"] + found["refuse"] + found["undecided"] == pytest.approx(1)


def test_enough_images_tell() -> None:
    """Not by refusing to decide does the gate keep its promises."""
    equal, worse = simulate(40, Setting(2, 3000)), simulate(40, Setting(2, 3000, worse=WORSE))
    assert equal["promote"] >= 0.95
    assert worse["refuse"] >= 0.95


def test_images_that_came_since_the_promotion_tell_the_true_accuracy() -> None:
    found = ratchet(runs=20, images=200, new=200, retrainings=15)
    assert found["promotions"] > 1
    assert found["new"] == pytest.approx(ACCURACY, abs=noise(ACCURACY, 20 * 200))
