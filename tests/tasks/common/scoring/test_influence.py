"""The influence of an image is the derivative of the metric by its weight."""

import numpy as np
import pytest
from sklearn import metrics as reference

from graft.tasks.common.scoring import influence

STEP = 1e-5


def images(seed, n=40):
    """Probabilities with ties, and which images have the class."""
    rng = np.random.default_rng(seed)
    has_N = rng.random(n) < 0.3
    has_N[:2] = True, False
    return np.round(np.clip(rng.random(n) + 0.2 * has_N, 0, 1), 1), has_N


def derivatives(of_weights, n):
    """By the weight of each image, where all are 1."""
    steps_NN = STEP * np.eye(n)
    return [(of_weights(1 + step_N) - of_weights(1 - step_N)) / (2 * STEP) for step_N in steps_NN]


RANKED = {
    influence.of_average_precision: reference.average_precision_score,
    influence.of_auroc: reference.roc_auc_score,
}
COUNTED = {influence.of_recall: reference.recall_score, influence.of_f1: reference.f1_score}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("of", RANKED)
def test_the_influence_on_a_ranking_is_the_derivative_of_scikit_learns_metric(of, seed):
    p_N, has_N = images(seed)
    value, influence_N = of(p_N, has_N)
    assert value == pytest.approx(RANKED[of](has_N, p_N))
    expected = derivatives(lambda weight_N: RANKED[of](has_N, p_N, sample_weight=weight_N), len(p_N))
    assert influence_N == pytest.approx(expected, abs=1e-8)
    assert influence_N.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("of", COUNTED)
def test_the_influence_on_a_count_is_the_derivative_of_scikit_learns_metric(of, seed):
    p_N, has_N = images(seed)
    value, influence_N = of(p_N >= 0.5, has_N)
    assert value == pytest.approx(COUNTED[of](has_N, p_N >= 0.5))
    expected = derivatives(lambda weight_N: COUNTED[of](has_N, p_N >= 0.5, sample_weight=weight_N), len(p_N))
    assert influence_N == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_influence_on_kappa_is_the_derivative_of_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, 3, 40)
    predicted_N = np.where(rng.random(40) < 0.6, y_N, rng.integers(0, 3, 40))
    value, influence_N = influence.of_kappa(predicted_N, y_N, 3)
    assert value == pytest.approx(reference.cohen_kappa_score(y_N, predicted_N))
    expected = derivatives(lambda w: reference.cohen_kappa_score(y_N, predicted_N, sample_weight=w), 40)
    assert influence_N == pytest.approx(expected, abs=1e-8)


def test_the_influence_on_the_unexplained_variance_is_the_derivative_of_scikit_learns_r2():
    rng = np.random.default_rng(0)
    y_N = 50 + rng.normal(size=40)
    predicted_N = y_N + 0.5 * rng.normal(size=40)
    value, influence_N = influence.of_r2(predicted_N, y_N)
    assert 1 - value == pytest.approx(reference.r2_score(y_N, predicted_N))
    expected = derivatives(lambda w: reference.r2_score(y_N, predicted_N, sample_weight=w), 40)
    assert -influence_N == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("has", [False, True])
def test_the_auroc_of_a_class_that_all_or_no_images_have_is_undefined(has):
    value, influence_N = influence.of_auroc(np.linspace(0, 1, 5), np.full(5, has))
    assert np.isnan(value)
    assert not influence_N.any()


def test_metrics_of_a_class_that_no_image_has_are_undefined():
    no_N = np.zeros(5, bool)
    assert np.isnan(influence.of_average_precision(np.linspace(0, 1, 5), no_N)[0])
    assert np.isnan(influence.of_recall(no_N, no_N)[0])
    assert np.isnan(influence.of_f1(no_N, no_N)[0])


def test_kappa_of_a_single_class_is_0_without_influence():
    value, influence_N = influence.of_kappa(np.zeros(4, int), np.zeros(4, int), 2)
    assert value == 0
    assert not influence_N.any()
