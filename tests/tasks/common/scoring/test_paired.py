"""Paired comparisons against published values; tests/simulations measures how often they are wrong."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import ttest_1samp

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.scoring.paired import compare, design_effect, holm, mid_p, more_images, outcome, tango

MARGIN = 0.05


def answers(right_N):
    """Probabilities of two classes for images of class 1."""
    p_N = np.where(right_N, 0.8, 0.2)
    return np.stack([1 - p_N, p_N], axis=1)


def models(both, won, lost, neither):
    """Outputs of two models by how many images each has right, and the targets."""
    counts = both, won, lost, neither
    first, second = (np.repeat(right, counts) for right in ([True, False, True, False], [True, True, False, False]))
    return answers(first), answers(second), np.ones(sum(counts), int)


def compared(both, won, lost, neither, unit_N=None, **more):
    first, second, target = models(both, won, lost, neither)
    units = np.arange(len(target)) if unit_N is None else unit_N
    return compare(first, second, target, units, "classification", **more)


@pytest.mark.parametrize(
    ("won", "lost", "n", "expected"),
    [
        (1, 7, 21, (-0.517, -0.026)),  # airway hyper-responsiveness (Fagerland, Lydersen and Laake 2014)
        (6, 16, 161, (-0.1240, -0.0054)),  # complete response (the same authors' package contingencytables)
    ],
)
def test_bounds_of_a_difference_of_proportions_are_tangos(won, lost, n, expected):
    z = float(ndtri(0.975))
    found = tango(won, lost, n, z, lower=True), tango(won, lost, n, z, lower=False)
    assert found == pytest.approx(expected, abs=5e-4)


def test_models_that_never_differ_have_tangos_bounds_in_closed_form():
    assert tango(0, 0, 30, 2.0, lower=True) == pytest.approx(-4 / (30 + 4))
    assert tango(0, 0, 30, 2.0, lower=False) == pytest.approx(4 / (30 + 4))


def test_the_bounds_solve_tangos_equation():
    """By hand, from the article's maximum likelihood estimate under the hypothesis."""
    won, lost, n, z = 7, 3, 40, 1.6449
    for lower in (True, False):
        d = tango(won, lost, n, z, lower=lower)
        a, b, c = 2 * n, -won - lost + (2 * n - won + lost) * d, -lost * d * (1 - d)
        q = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        score = (won - lost - n * d) / np.sqrt(n * (2 * q + d * (1 - d)))
        assert abs(score) == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize(
    ("won", "lost", "expected"),
    [(7, 1, 0.0391 / 2), (1, 7, 1 - 0.0391 / 2), (16, 6, 0.034690 / 2), (5, 5, 0.5), (0, 0, 1.0), (3, 0, 0.0625)],
)
def test_the_mid_p_is_fagerlands(won, lost, expected):
    """The examples above, whose two-sided values are 0.0391 (Fagerland, Lydersen and Laake 2013) and 0.034690."""
    assert mid_p(won, lost) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, ("d", "a")),  # 0.05 / 4, 0.05 / 3, but not 0.05 / 2
        ({"a": 0.02, "b": 0.02}, ("a", "b")),
        ({"a": 0.03, "b": 0.04}, ()),
        ({"a": 0.05}, ("a",)),
        ({}, ()),
    ],
)
def test_holm_lets_the_smallest_p_values_stand(p_values, expected):
    assert set(holm(p_values, 0.05)) == set(expected)


def test_images_that_are_independent_have_a_design_effect_of_about_one():
    value_N = np.random.default_rng(0).normal(size=4000)
    assert design_effect(value_N, np.arange(4000) // 4, 1000) == pytest.approx(1, abs=0.15)


def test_copies_have_a_design_effect_of_their_number():
    value_N = np.repeat(np.random.default_rng(0).normal(size=400), 5)
    assert design_effect(value_N, np.repeat(np.arange(400), 5), 400) == pytest.approx(5, rel=0.01)


def test_a_value_that_never_varies_has_the_largest_design_effect():
    assert design_effect(np.ones(12), np.repeat(np.arange(3), 4), 3) == 4


@pytest.mark.parametrize("metric", [metric.key for metric in METRICS["classification"]])
@pytest.mark.parametrize("images_a_unit", [1, 5])
def test_exchanging_the_models_exchanges_the_signs(metric, images_a_unit):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 100)
    first, second = (rng.dirichlet([1, 1, 1], 100) + share * np.eye(3)[target] for share in (0.2, 0.5))
    there = compare(first, second, target, np.arange(100) // images_a_unit, "classification", metric=metric)
    back = compare(second, first, target, np.arange(100) // images_a_unit, "classification", metric=metric)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert (there.p_better, there.p_worse) == pytest.approx((back.p_worse, back.p_better))
    assert there.low < there.difference < there.high
    assert 0 < there.p_better < 0.5 < there.p_worse < 1


def test_the_signs_of_units_are_tested_as_by_a_t_test():
    """With units of one size whose mean change is near 0, the uncentred t is that of Student."""
    rng = np.random.default_rng(1)
    change_UI = rng.choice([-1, 0, 1], (20, 10), p=[0.15, 0.7, 0.15])
    first, second = (answers(right_UI.ravel()) for right_UI in (change_UI <= 0, change_UI >= 0))
    found = compare(first, second, np.ones(200, int), np.repeat(np.arange(20), 10), "classification")
    expected = ttest_1samp(change_UI.sum(axis=1), 0, alternative="greater").pvalue
    assert found.p_better == pytest.approx(expected, abs=0.01)


def test_copies_of_the_images_change_nothing():
    rng = np.random.default_rng(2)
    first, second = rng.random((60, 2)), rng.random((60, 2))
    target = rng.integers(0, 2, 60)
    for metric in ("balanced_accuracy", "auroc", "kappa"):
        alone = compare(first, second, target, np.arange(60), "classification", metric=metric)
        tripled = (np.tile(each, (3, 1)) for each in (first, second))
        copied = compare(*tripled, np.tile(target, 3), np.tile(np.arange(60), 3), "classification", metric=metric)
        assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.01)
        assert copied.p_better == pytest.approx(alone.p_better)
        assert (copied.images, copied.units) == (180, 60)


@pytest.mark.parametrize("metric", [metric.key for metric in METRICS["classification"]])
def test_two_perfect_models_on_few_images_are_not_shown_to_be_equal(metric):
    target = np.arange(12) % 2
    perfect = 0.1 + 0.8 * np.eye(2)[target]
    found = compare(perfect, perfect, target, np.arange(12), "classification", metric=metric)
    assert found.low < -0.1
    assert found.high > 0.1
    assert (found.p_better, found.p_worse) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("won", "lost", "n", "expected"),
    [
        (20, 2, 100, "better"),
        (5, 5, 1000, "not worse"),
        (2, 40, 100, "worse"),
        (3, 3, 30, "too few"),
    ],
)
def test_an_outcome_follows_from_the_bounds(won, lost, n, expected):
    assert outcome(compared(n - won - lost, won, lost, 0), MARGIN).says == expected


def test_as_many_more_images_as_are_said_would_tell():
    few = outcome(compared(24, 3, 3, 0), MARGIN)
    factor = (30 + few.more) / 30
    enough = compared(*(round(factor * count) for count in (24, 3, 3)), 0)
    assert few.more > 30
    assert outcome(enough, MARGIN).says == "not worse"


def test_without_a_margin_no_number_of_images_is_enough():
    assert more_images(compared(24, 3, 3, 0), 0.0) == 0


def test_numbers_and_several_classes_are_compared_too():
    rng = np.random.default_rng(0)
    y_N = rng.normal(size=80)
    worse, better = y_N[:, None] + rng.normal(size=(80, 1)), y_N[:, None] + 0.3 * rng.normal(size=(80, 1))
    assert compare(worse, better, y_N, np.arange(80), "regression").p_better < 0.001
    y_NK = (rng.random((80, 3)) < 0.4).astype(float)
    worse, better = (np.clip(share * y_NK + (1 - share) * rng.random((80, 3)), 0, 1) for share in (0.1, 0.6))
    for metric in METRICS["multilabel"]:
        found = compare(worse, better, y_NK, np.arange(80), "multilabel", metric=metric.key)
        assert found.low > 0
        assert found.p_better < 0.001
