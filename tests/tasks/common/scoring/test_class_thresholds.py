import numpy as np
import pytest
from sklearn.metrics import f1_score

from graft.tasks.common.scoring.class_thresholds import FEW, cross_fitted, f1_thresholds


def drawn(n, k=3, seed=0, share=0.15):
    """Calibrated probabilities and whether images have the classes."""
    rng = np.random.default_rng(seed)
    p_NK = rng.beta(2 * share, 2 * (1 - share), size=(n, k))
    return p_NK, (rng.uniform(size=(n, k)) < p_NK).astype(float)


def test_the_threshold_is_that_of_the_largest_f1():
    p_NK, y_NK = drawn(60, k=2, share=0.3)
    for k, threshold in enumerate(f1_thresholds(p_NK, y_NK)):
        every = [f1_score(y_NK[:, k], p_NK[:, k] >= t) for t in np.unique(p_NK[:, k])]
        assert f1_score(y_NK[:, k], p_NK[:, k] >= threshold) == max(every)


def test_it_is_half_of_the_largest_f1_of_calibrated_probabilities():
    p_NK, y_NK = drawn(100_000, k=1)
    (threshold,) = f1_thresholds(p_NK, y_NK)
    assert threshold == pytest.approx(f1_score(y_NK[:, 0], p_NK[:, 0] >= threshold) / 2, abs=0.03)


def test_images_of_equal_probability_are_predicted_together():
    p_N1 = np.array([0.9] * 6 + [0.4] * 6 + [0.1] * 6)[:, None]
    y_N1 = np.array([1.0] * 6 + [1, 1, 1, 1, 0, 0] + [0.0] * 6)[:, None]
    assert f1_thresholds(p_N1, y_N1)[0] == pytest.approx(0.25)


def test_a_class_with_few_images_keeps_one_half():
    p_NK, y_NK = drawn(100, k=1)
    y_NK[np.flatnonzero(y_NK[:, 0])[FEW - 1 :]] = 0
    assert f1_thresholds(p_NK, y_NK) == [0.5]


def test_where_all_images_have_the_class_all_are_predicted():
    p_N1 = np.linspace(0.01, 0.3, 20)[:, None]
    assert f1_thresholds(p_N1, np.ones((20, 1)))[0] < 0.01


def test_cross_fitted_decisions_do_not_flatter():
    """Probabilities that say nothing: thresholds chosen on the same images seem better than they are."""
    rng = np.random.default_rng(0)
    honest, flattered, truth = [], [], []
    for _ in range(30):
        p_N1, y_N1 = rng.uniform(size=(60, 1)), (rng.uniform(size=(60, 1)) < 0.3).astype(float)
        honest.append(f1_score(y_N1, cross_fitted(p_N1, y_N1, np.arange(60))))
        threshold = f1_thresholds(p_N1, y_N1)
        flattered.append(f1_score(y_N1, p_N1 >= threshold))
        predicted = rng.uniform(size=(20_000, 1)) >= threshold
        truth.append(f1_score(rng.uniform(size=20_000) < 0.3, predicted))
    assert np.mean(flattered) > np.mean(truth) + 0.03
    assert np.mean(honest) == pytest.approx(np.mean(truth), abs=0.03)


def test_the_images_of_a_unit_do_not_choose_their_own_threshold():
    """Each unit is 30 equal images: whatever the others say, only the unit itself knows its probability."""
    rng = np.random.default_rng(0)
    unit_N = np.repeat(np.arange(20), 30)
    p_N1 = rng.uniform(size=20)[unit_N][:, None]
    y_N1 = (rng.uniform(size=20) < 0.3)[unit_N][:, None].astype(float)
    by_unit, by_image = (f1_score(y_N1, cross_fitted(p_N1, y_N1, units)) for units in (unit_N, np.arange(600)))
    assert by_unit < by_image
