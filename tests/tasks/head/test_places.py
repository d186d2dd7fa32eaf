"""Moments at each place: 12 images in 3 parts, 4 places of 2 channels."""

from __future__ import annotations

import numpy as np

from graft.tasks.common.maps.form import Level, MapForm, Part
from graft.tasks.head.places import Moments, Places, shape_of, turned

X_NPE = np.random.default_rng(0).normal(size=(12, 4, 2))


def moments(x_NPE: np.ndarray) -> Moments:
    return Moments(len(x_NPE), x_NPE.sum(axis=0), np.einsum("npe,npf->pef", x_NPE, x_NPE))


def places(x_NPE: np.ndarray) -> Places:
    return Places((2, 2, 2), [moments(x_NPE[part::3]) for part in range(3)])


def test_the_moments_without_a_part_are_those_of_the_other_images():
    means, covariance_PEE = places(X_NPE).without(1).gaussians()
    x_NPE = np.delete(X_NPE, np.s_[1::3], axis=0)
    np.testing.assert_allclose(means, x_NPE.mean(axis=0), atol=1e-9)
    expected = np.stack([np.cov(x_NPE[:, place].T, bias=True) for place in range(4)])
    np.testing.assert_allclose(covariance_PEE, expected, atol=2e-3)


def test_what_is_turned_has_the_inverse_covariance():
    covariance_PEE = places(X_NPE).without(None).gaussians()[1]
    turn_PEE = turned(covariance_PEE)
    np.testing.assert_allclose(turn_PEE @ turn_PEE.transpose(0, 2, 1), np.linalg.inv(covariance_PEE))


def test_a_gaussian_at_each_place_is_better_where_places_differ():
    assert places(X_NPE + 5 * np.arange(4)[:, None]).is_better()
    assert not places(X_NPE).is_better()


def test_places_are_those_of_the_deepest_module_and_bounded():
    two = (Part("a", 34), Part("b", 94))
    assert shape_of(MapForm("patches", (Level("a + b", 128, 28, 33),), two)) == (14, 17, 94)
    assert shape_of(MapForm("patches", (Level("b", 94, 14, 14),), two[1:])) == (14, 14, 94)
    high, wide, _ = shape_of(MapForm("patches", (Level("a + b", 128, 224, 112),), two))
    assert 900 < high * wide <= 1024
