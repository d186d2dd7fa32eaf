"""Intervals over independent units; tests/simulations measures how often they contain the true value."""

import numpy as np
import pytest
from scipy.stats import binomtest

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.scoring.intervals import (
    class_intervals,
    error_intervals,
    interval,
    proportion_interval,
    wilson,
)
from graft.tasks.common.scoring.main_metric import metric_of

SHARES = [(task, metric.key) for task in ("classification", "multilabel") for metric in METRICS[task]]


def outputs(task, n=60, right=0.8, seed=0):
    """(probabilities of two classes, targets); a share of the answers is right."""
    rng = np.random.default_rng(seed)
    y_N = np.arange(n) % 2
    said_N = np.where(rng.random(n) < right, y_N, 1 - y_N)
    p_N = np.where(said_N == 1, 0.75, 0.25) + 0.2 * (rng.random(n) - 0.5)
    p_NK = np.stack([1 - p_N, p_N], axis=1)
    return p_NK, y_N if task == "classification" else np.eye(2)[y_N]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (29, 30), (37, 50), (999, 1000)])
def test_the_interval_of_a_share_is_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(0.9, method="wilson")
    assert wilson(n, right / n, 0.9) == pytest.approx(tuple(expected))
    assert proportion_interval(np.arange(n) < right, np.arange(n), 0.9) == pytest.approx(tuple(expected))


def test_the_interval_of_thirty_of_thirty_does_not_jump():
    perfect = proportion_interval(np.arange(30) < 30, np.arange(30), 0.95)
    nearly = proportion_interval(np.arange(30) < 29, np.arange(30), 0.95)
    assert nearly[0] < perfect[0] < nearly[0] + 0.06
    assert perfect == pytest.approx((0.886, 1.0), abs=1e-3)


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_the_interval_contains_the_metric(task, metric):
    p_NK, target = outputs(task)
    low, high = interval(p_NK, target, np.arange(60), task, metric=metric)
    assert -1 <= low < metric_of(p_NK, target, metric, task) < high <= 1


@pytest.mark.parametrize(("task", "metric"), SHARES)
@pytest.mark.parametrize("images_a_unit", [1, 3])
def test_a_perfect_score_on_twelve_images_has_an_interval(task, metric, images_a_unit):
    p_NK, target = outputs(task, n=12, right=1.0)
    low, high = interval(p_NK, target, np.arange(12) // images_a_unit, task, metric=metric)
    assert metric_of(p_NK, target, metric, task) == pytest.approx(1.0)
    assert high == pytest.approx(1.0)
    assert low < 0.9


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_one_error_in_two_hundred_images_does_not_narrow_the_interval_of_a_perfect_score(task, metric):
    p_NK, target = outputs(task, n=200, right=1.0)
    perfect = interval(p_NK, target, np.arange(200), task, metric=metric)
    p_NK[0] = p_NK[0, ::-1]
    nearly = interval(p_NK, target, np.arange(200), task, metric=metric)
    assert perfect[0] - 0.12 < nearly[0] < perfect[0] + 0.001
    assert 1 - nearly[0] > 0.5 * (1 - perfect[0])


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_copies_do_not_narrow_the_interval(task, metric):
    p_NK, target = outputs(task)
    alone = interval(p_NK, target, np.arange(60), task, metric=metric)
    copied = interval(
        np.tile(p_NK, (3, 1)), np.concatenate([target] * 3), np.tile(np.arange(60), 3), task, metric=metric
    )
    assert copied == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_the_order_of_the_images_and_the_names_of_the_units_have_no_effect(task, metric):
    p_NK, target = outputs(task)
    unit_N = np.arange(60) // 4
    order = np.random.default_rng(1).permutation(60)
    found = interval(p_NK, target, unit_N, task, metric=metric)
    assert interval(p_NK[order], target[order], 7 * unit_N[order] + 2, task, metric=metric) == pytest.approx(found)


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_a_single_unit_says_nothing(task, metric):
    p_NK, target = outputs(task)
    low, high = interval(p_NK, target, np.zeros(60, int), task, metric=metric)
    assert high - low > 0.8


@pytest.mark.parametrize(("task", "metric"), SHARES)
def test_more_confidence_is_a_wider_interval(task, metric):
    p_NK, target = outputs(task)
    low, high = interval(p_NK, target, np.arange(60), task, metric=metric, confidence=0.8)
    lower, higher = interval(p_NK, target, np.arange(60), task, metric=metric, confidence=0.99)
    assert lower < low < high < higher


def test_a_class_has_its_own_interval_and_none_without_an_image():
    p_NK, y_N = outputs("classification")
    p_NK = np.concatenate([p_NK, np.zeros((60, 1))], axis=1)
    *known, unknown = class_intervals(p_NK, y_N, np.arange(60), "classification", "mean_average_precision", 0.95)
    assert all(low < value < high for value, low, high in known)
    assert np.isnan(unknown).all()


def test_the_interval_of_a_rare_class_is_wider():
    p_NK, y_N = outputs("classification", n=200)
    kept = (y_N == 0) | (np.arange(200) < 20)
    found = class_intervals(p_NK[kept], y_N[kept], np.arange(kept.sum()), "classification", "balanced_accuracy", 0.95)
    often, seldom = (high - low for _, low, high in found)
    assert seldom > 2 * often


def test_if_no_class_occurs_the_interval_says_nothing():
    low, high = interval(np.full((3, 2), 0.2), np.zeros((3, 2)), np.arange(3), "multilabel")
    assert low == pytest.approx(0)
    assert high > 0.7


def r2_interval(predicted_N, y_N, units, confidence):
    return interval(predicted_N[:, None], y_N, units, "regression", confidence=confidence)


def numbers(seed=0, n=150):
    rng = np.random.default_rng(seed)
    y_N = 50 + 10 * rng.normal(size=n)
    return y_N + 4 * rng.normal(size=n), y_N


def test_the_intervals_of_numbers_agree_with_resampling_image_by_image():
    predicted_N, y_N = numbers()
    drawn_BN = np.random.default_rng(5).integers(0, 150, (4000, 150))
    apart_BN = (predicted_N - y_N)[drawn_BN]
    resampled = {
        "r2": 1 - (apart_BN**2).mean(axis=1) / y_N[drawn_BN].var(axis=1),
        "mae": np.abs(apart_BN).mean(axis=1),
        "rmse": np.sqrt((apart_BN**2).mean(axis=1)),
    }
    units = np.arange(150)
    found = error_intervals(predicted_N, y_N, units, 0.9) | {"r2": r2_interval(predicted_N, y_N, units, 0.9)}
    for name, values in resampled.items():
        low, high = np.quantile(values, [0.05, 0.95])
        assert found[name] == pytest.approx((low, high), abs=0.15 * (high - low)), name


def test_copies_do_not_narrow_the_intervals_of_numbers():
    predicted_N, y_N = numbers(n=40)
    copied = np.tile(predicted_N, 3), np.tile(y_N, 3), np.tile(np.arange(40), 3), 0.95
    assert r2_interval(*copied) == pytest.approx(r2_interval(predicted_N, y_N, np.arange(40), 0.95))
    alone = error_intervals(predicted_N, y_N, np.arange(40), 0.95)
    assert error_intervals(*copied)["mae"] == pytest.approx(alone["mae"])


@pytest.mark.parametrize("predicted", [[2.0, 2.0, 2.0], [2.0, 3.0, 2.0]])
def test_numbers_that_are_all_the_same_have_intervals_and_no_warning(predicted):
    y_N, predicted_N = np.full(3, 2.0), np.array(predicted)
    with np.errstate(all="raise"):
        ends = r2_interval(predicted_N, y_N, np.arange(3), 0.95), error_intervals(predicted_N, y_N, np.arange(3), 0.95)
    assert np.isfinite([*ends[0], *ends[1]["mae"], *ends[1]["rmse"]]).all()


@pytest.mark.parametrize("n", range(1, 60))
def test_an_interval_holds_its_own_value_in_spite_of_rounding(n):
    for share in (0.0, 1.0):
        low, high = wilson(n, share, 0.95)
        assert low <= share <= high
