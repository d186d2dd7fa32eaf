import numpy as np
import pytest

from graft.tasks.labelling.probe import AXES, disagreement, learn, principal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 8)).astype(np.float32)


def test_the_leading_axes_come_first():
    x_ND = RNG.normal(size=(300, 200)) * np.linspace(0.1, 3, 200)
    x_NA = principal(x_ND.astype(np.float32))
    assert x_NA.shape == (300, AXES)
    assert list(np.argsort(-x_NA.var(axis=0))[:3]) == [0, 1, 2]


def test_classes_are_learned_and_one_without_images_has_no_probability():
    code_N = (X[:, 0] > 0).astype(np.int64) * 2
    p_NK = learn(X, code_N, "classification", 3)(X)
    assert (p_NK.argmax(axis=1) == code_N).mean() > 0.95
    assert (p_NK[:, 1] == 0).all()
    assert p_NK.sum(axis=1) == pytest.approx(1)


def test_several_classes_an_image_are_learned_each():
    y_NK = np.stack([X[:, 0] > 0, X[:, 1] > 0.5], axis=1).astype(np.float64)
    p_NK = learn(X, y_NK, "multilabel", 2)(X)
    assert ((p_NK > 0.5) == y_NK).mean() > 0.9


def test_numbers_are_learned():
    target_N = 3 * X[:, 0] - X[:, 1] + 5
    assert learn(X, target_N, "regression", 0)(X)[:, 0] == pytest.approx(target_N, abs=0.1)


def test_models_disagree_where_they_saw_nothing():
    target_N = 3 * X[:, 0] + RNG.normal(size=200)
    near_far = np.concatenate([0 * X[:1], 20 * X[:1]])
    near, far = disagreement(X, target_N, near_far, seed=0)
    assert far > 3 * near
