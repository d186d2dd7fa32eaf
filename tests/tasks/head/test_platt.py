import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from graft.tasks.common.heads.base import sigmoid, softmax
from graft.tasks.common.scoring.classification import log_loss
from graft.tasks.head.platt import fit_logits


def scores(n=4000, k=3, seed=0):
    """Logits of which classes were drawn, and those classes."""
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(size=(n, k)) * 2 + np.arange(k)
    y_N = (logits_NK + rng.gumbel(size=(n, k))).argmax(axis=1)
    return logits_NK, y_N


def test_logits_that_are_right_stay_as_they_are():
    logits_NK, y_N = scores()
    factor_K, shift_K = fit_logits(logits_NK, y_N, np.ones(len(y_N)), "classification")
    assert np.allclose(factor_K, 1, atol=0.06)
    assert np.allclose(shift_K - shift_K.mean(), 0, atol=0.15)


@pytest.mark.parametrize("times", [1e-6, 0.1, 30.0])
def test_the_scale_of_scores_has_no_effect(times):
    logits_NK, y_N = scores()
    factor_K, _ = fit_logits(logits_NK * times + 5, y_N, np.ones(len(y_N)), "classification")
    expected, _ = fit_logits(logits_NK, y_N, np.ones(len(y_N)), "classification")
    assert np.allclose(factor_K * times, expected, rtol=1e-4)


def test_no_other_factor_has_a_smaller_loss():
    logits_NK, y_N = scores()
    factor_K, shift_K = fit_logits(logits_NK * 0.3, y_N, np.ones(len(y_N)), "classification")
    losses = [log_loss(softmax(logits_NK * 0.3 * factor_K * times + shift_K), y_N) for times in (0.9, 1.0, 1.1)]
    assert losses.index(min(losses)) == 1


def test_two_numbers_a_class_are_scikit_learns():
    logits_NK, y_N = scores()
    y_NK = np.eye(3)[y_N]
    factor_K, shift_K = fit_logits(logits_NK, y_NK, np.ones(len(y_N)), "multilabel")
    for k in range(3):
        theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(logits_NK[:, [k]], y_NK[:, k])
        p_N = theirs.predict_proba(logits_NK[:, [k]])[:, 1]
        assert np.allclose(sigmoid(factor_K[k] * logits_NK[:, k] + shift_K[k]), p_N, atol=5e-3)


def test_weights_count_as_rows():
    logits_NK, y_N = scores(500)
    times = np.where(y_N == 0, 3, 1)
    weighted = fit_logits(logits_NK, y_N, times.astype(float), "classification")
    repeated = fit_logits(
        np.repeat(logits_NK, times, axis=0), np.repeat(y_N, times), np.ones(times.sum()), "classification"
    )
    assert np.allclose(weighted[0], repeated[0], rtol=0.02)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_scores_without_an_error_ask_for_no_infinite_factor(task):
    y_N = np.arange(30) % 3
    target = y_N if task == "classification" else np.eye(3)[y_N]
    factor_K, shift_K = fit_logits(np.eye(3)[y_N] * 2 - 1, target, np.ones(30), task)
    assert np.isfinite([factor_K, shift_K]).all()
    assert (factor_K < 20).all()


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_scores_that_are_wrong_are_not_turned_round(task):
    logits_NK, y_N = scores()
    target = y_N if task == "classification" else np.eye(3)[y_N]
    factor_K, shift_K = fit_logits(-logits_NK, target, np.ones(len(y_N)), task)
    assert (factor_K == 0).all()
    shares = np.bincount(y_N) / len(y_N)
    p_K = softmax(shift_K[None])[0] if task == "classification" else sigmoid(shift_K)
    assert np.allclose(p_K, shares, atol=2e-3)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_scores_that_never_vary_give_the_shares(task):
    y_N = np.array([0] * 70 + [1] * 20 + [2] * 10)
    target = y_N if task == "classification" else np.eye(3)[y_N]
    factor_K, shift_K = fit_logits(np.full((100, 3), 0.4), target, np.ones(100), task)
    logits_K = factor_K * 0.4 + shift_K
    p_K = softmax(logits_K[None])[0] if task == "classification" else sigmoid(logits_K)
    assert np.allclose(p_K, [0.7, 0.2, 0.1], atol=0.03)
