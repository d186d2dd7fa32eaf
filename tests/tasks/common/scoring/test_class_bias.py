import numpy as np
import pytest
from scipy.optimize import minimize

from graft.tasks.common.heads.base import softmax
from graft.tasks.common.heads.calibration import TINY
from graft.tasks.common.scoring.class_bias import PRIOR, fit_class_bias

WEIGHT_K = np.array([1.0, 4.0, 16.0])


def drawn(n, sharpness=1.0, seed=0, weight_K=WEIGHT_K):
    """Probabilities of a head that was trained with class weights, and classes by the true ones, p / w."""
    rng = np.random.default_rng(seed)
    z_NK = rng.normal(size=(n, 3)) * 1.5
    y_N = (softmax(z_NK).cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    return softmax((z_NK + np.log(weight_K)) * sharpness), y_N


def penalised(theta, z_NK, y_N, weight_N, weight_K):
    """The module's F, as its docstring writes it."""
    a, b_K = theta[0], theta[1:]
    prior_K = -np.log(weight_K) + np.log(weight_K).mean()
    logits = a * z_NK + b_K
    lost = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y_N)), y_N]
    return weight_N / weight_N.mean() @ lost + a - 1 - np.log(a) + PRIOR * ((b_K - prior_K) ** 2).sum() / 8


def test_the_bias_takes_the_class_weights_out_again():
    temperature, bias_K = fit_class_bias(*drawn(20_000), np.ones(20_000), WEIGHT_K, TINY)
    assert temperature == pytest.approx(1, rel=0.05)
    assert bias_K - bias_K[0] == pytest.approx(-np.log(WEIGHT_K), abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_temperature_and_bias_are_where_a_general_minimiser_finds_the_least_loss(seed):
    p_NK, y_N = drawn(80, sharpness=1.7, seed=seed)
    weight_N = np.random.default_rng(seed).uniform(0.1, 3, 80)
    least = minimize(
        penalised,
        [1.0, 0, 0, 0],
        args=(np.log(p_NK), y_N, weight_N, WEIGHT_K),
        bounds=[(0.05, 20)] + [(None, None)] * 3,
    )
    temperature, bias_K = fit_class_bias(p_NK, y_N, weight_N, WEIGHT_K, TINY)
    assert 1 / temperature == pytest.approx(least.x[0], rel=1e-3)
    assert bias_K == pytest.approx(least.x[1:], abs=1e-3)


def test_a_head_that_was_not_trained_with_the_weights_keeps_its_shares():
    """Fine-tuning may have ignored them: with enough images the prior gives way."""
    p_NK, y_N = drawn(4000, weight_K=np.ones(3))
    temperature, bias_K = fit_class_bias(p_NK, y_N, np.ones(4000), WEIGHT_K, TINY)
    mean_K = softmax(np.log(p_NK) / temperature + bias_K).mean(axis=0)
    assert mean_K == pytest.approx(np.bincount(y_N) / 4000, abs=0.01)


def test_a_class_without_a_held_out_image_keeps_the_prior():
    p_NK = np.tile([[0.45, 0.45, 0.1]], (4, 1))
    _, bias_K = fit_class_bias(p_NK, np.array([0, 1, 0, 1]), np.ones(4), np.ones(3), TINY)
    assert abs(bias_K).max() < 0.2


def test_the_scale_of_the_class_weights_does_not_matter():
    one, other = (fit_class_bias(*drawn(300), np.ones(300), factor * WEIGHT_K, TINY) for factor in (1.0, 1e4))
    assert one[0] == pytest.approx(other[0])
    assert one[1] == pytest.approx(other[1])


def test_probabilities_of_0_are_calibrated_too():
    p_NK = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.4, 0.0], [0.2, 0.0, 0.8]])
    temperature, bias_K = fit_class_bias(p_NK, np.array([0, 1, 1, 2]), np.ones(4), WEIGHT_K, 0.1)
    assert np.isfinite([temperature, *bias_K]).all()
