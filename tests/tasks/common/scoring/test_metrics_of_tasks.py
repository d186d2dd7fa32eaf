"""Metrics for several classes an image and for numbers; scikit-learn and scipy are the reference."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as reference

from graft.tasks.common.data.task import MAIN
from graft.tasks.common.scoring import main_metric, multilabel, ranking, regression

SEEDS = range(6)


def several(seed, n=80, k=5, ties=False):
    """(probabilities, zeros and ones), of which each class has some of each; the probabilities know a little."""
    rng = np.random.default_rng(seed)
    y_NK = (rng.random((n, k)) < np.linspace(0.1, 0.6, k)).astype(np.float64)
    y_NK[0], y_NK[1] = 1, 0
    p_NK = np.clip(0.3 * y_NK + 0.7 * rng.random((n, k)), 0, 1)
    return (np.round(p_NK, 1) if ties else p_NK), y_NK


def numbers(seed, n=60):
    rng = np.random.default_rng(seed)
    y_N = 50 + 10 * rng.normal(size=n)
    return y_N + 4 * rng.normal(size=n), y_N


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(seed, ties):
    p_NK, y_NK = several(seed, ties=ties)
    expected = reference.average_precision_score(y_NK, p_NK, average=None)
    assert ranking.average_precisions(p_NK, y_NK) == pytest.approx(expected)
    assert ranking.mean_average_precision(p_NK, y_NK) == pytest.approx(expected.mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_metrics_of_several_classes_are_scikit_learns(seed):
    p_NK, y_NK = several(seed)
    found_NK = p_NK >= 0.5
    scores = multilabel.multilabel_scores(p_NK, y_NK)
    assert scores == pytest.approx(
        {
            "mean_average_precision": reference.average_precision_score(y_NK, p_NK),
            "f1_macro": reference.f1_score(y_NK, found_NK, average="macro"),
            "f1_micro": reference.f1_score(y_NK, found_NK, average="micro"),
            "subset_accuracy": reference.accuracy_score(y_NK, found_NK),
            "hamming_loss": reference.hamming_loss(y_NK, found_NK),
            "log_loss": np.mean([reference.log_loss(y, p) for y, p in zip(y_NK.T, p_NK.T, strict=True)]),
        }
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_each_classs_metrics_are_scikit_learns(seed):
    p_NK, y_NK = several(seed)
    names = ["a", "b", "c", "d", "e"]
    columns = reference.precision_recall_fscore_support(y_NK, p_NK >= 0.5)
    for k, row in enumerate(multilabel.per_label(p_NK, y_NK, names).values()):
        expected = dict(zip(("precision", "recall", "f1", "support"), (column[k] for column in columns), strict=True))
        average = reference.average_precision_score(y_NK[:, k], p_NK[:, k])
        assert row == pytest.approx({"average_precision": average, **expected})


def test_a_probability_of_a_half_counts_as_found():
    assert multilabel.per_label(np.array([[0.5], [0.1]]), np.array([[1.0], [0.0]]), ["a"])["a"]["recall"] == 1.0


def test_a_class_that_no_image_has_counts_for_no_mean_and_has_no_warning():
    p_NK, y_NK = several(0)
    y_NK[:, 2] = 0
    kept = [0, 1, 3, 4]
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, row = multilabel.multilabel_scores(p_NK, y_NK), multilabel.per_label(p_NK, y_NK, list("abcde"))["c"]
    expected = multilabel.multilabel_scores(p_NK[:, kept], y_NK[:, kept])
    assert scores["mean_average_precision"] == pytest.approx(expected["mean_average_precision"])
    assert scores["f1_macro"] == pytest.approx(expected["f1_macro"])
    assert (row["average_precision"], row["recall"], row["support"]) == (None, 0.0, 0)


def test_images_without_any_class_have_metrics():
    scores = multilabel.multilabel_scores(np.full((3, 2), 0.2), np.zeros((3, 2)))
    assert (scores["mean_average_precision"], scores["subset_accuracy"], scores["f1_micro"]) == (0.0, 1.0, 0.0)


def test_log_loss_of_several_classes_weighs_images():
    p_NK, y_NK = several(1, n=4)
    twice = multilabel.several_log_loss(p_NK[[0, 0, 0, 1]], y_NK[[0, 0, 0, 1]])
    assert multilabel.several_log_loss(p_NK[:2], y_NK[:2], np.array([3.0, 1.0])) == pytest.approx(twice)


def test_log_loss_of_certainty_that_is_wrong_is_finite():
    assert np.isfinite(multilabel.several_log_loss(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_precision_recall_curve_is_scikit_learns(seed):
    p_NK, y_NK = several(seed, ties=True)
    recall, precision = ranking.precision_recall(p_NK[:, 0], y_NK[:, 0])
    expected_precision, expected_recall, _ = reference.precision_recall_curve(y_NK[:, 0], p_NK[:, 0])
    assert recall == pytest.approx(expected_recall[:-1][::-1])
    assert precision == pytest.approx(expected_precision[:-1][::-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_roc_curve_is_scikit_learns(seed):
    p_NK, y_NK = several(seed, ties=True)
    false, hits = ranking.roc(p_NK[:, 0], y_NK[:, 0])
    expected_false, expected_hits, _ = reference.roc_curve(y_NK[:, 0], p_NK[:, 0], drop_intermediate=False)
    assert false == pytest.approx(expected_false)
    assert hits == pytest.approx(expected_hits)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_metrics_of_numbers_are_scikit_learns_and_scipys(seed):
    predicted_N, y_N = numbers(seed)
    assert regression.regression_scores(predicted_N, y_N) == pytest.approx(
        {
            "r2": reference.r2_score(y_N, predicted_N),
            "mae": reference.mean_absolute_error(y_N, predicted_N),
            "rmse": reference.root_mean_squared_error(y_N, predicted_N),
            "median_absolute_error": reference.median_absolute_error(y_N, predicted_N),
            "spearman": spearmanr(predicted_N, y_N).statistic,
        }
    )


def test_ranks_of_equal_numbers_are_shared():
    predicted_N, y_N = (np.round(values, -1) for values in numbers(2))
    assert regression.spearman(predicted_N, y_N) == pytest.approx(spearmanr(predicted_N, y_N).statistic)


@pytest.mark.parametrize(
    ("same", "predicted", "expected"),
    [
        (2.0, [2.0, 2.0, 2.0], 1.0),
        (2.0, [2.0, 3.0, 2.0], 0.0),
        (0.1, [0.1, 0.1, 0.1], 1.0),
        (0.1, [0.2, 0.1, 0.15], 0.0),
    ],
)
def test_numbers_that_are_all_the_same_have_metrics_and_no_warning(same, predicted, expected):
    y_N, predicted_N = np.full(3, same), np.array(predicted)  # the mean of 0.1, 0.1 and 0.1 is not 0.1
    with np.errstate(all="raise"):
        scores = regression.regression_scores(predicted_N, y_N)
    assert (scores["r2"], scores["spearman"]) == (expected, None)


@pytest.mark.parametrize("task", [task for task in MAIN if task != "anomaly"])  # its loss needs a threshold
def test_a_better_model_has_a_larger_main_metric_and_a_smaller_loss(task):
    if task == "classification":
        target = np.array([0, 1, 1])
        good, bad = np.eye(2)[target] * 0.8 + 0.1, np.full((3, 2), 0.5)
    elif task == "multilabel":
        target = several(0)[1]
        good, bad = 0.1 + 0.8 * target, np.full(target.shape, 0.5)
    else:
        bad, target = numbers(0)
        good, bad = target[:, None] + 1, bad[:, None]
    assert main_metric.main_metric(good, target, task) > main_metric.main_metric(bad, target, task)
    assert main_metric.loss(good, target, task) < main_metric.loss(bad, target, task)


def test_the_loss_of_a_number_is_the_weighted_mean_squared_error():
    loss = main_metric.loss(np.array([[1.0], [2.0]]), np.array([0.0, 0.0]), "regression", np.array([3.0, 1.0]))
    assert loss == pytest.approx((3 * 1 + 1 * 4) / 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_resamples_are_those_of_the_images_drawn(seed):
    predicted_N, y_N = numbers(seed)
    p_NK, y_NK = several(seed)
    rng = np.random.default_rng(seed)
    for output, target, task in ((predicted_N[:, None], y_N, "regression"), (p_NK, y_NK, "multilabel")):
        rows = rng.integers(0, len(target), len(target))
        times_BN = np.stack([np.ones(len(target)), np.bincount(rows, minlength=len(target))])
        whole, drawn = main_metric.main_metrics(output, target, task, times_BN)
        assert whole == pytest.approx(main_metric.main_metric(output, target, task))
        assert drawn == pytest.approx(main_metric.main_metric(output[rows], target[rows], task))


@pytest.mark.parametrize(("unit", "offset"), [(1e-7, 0.0), (1e7, 0.0), (1.0, 1e6)])
def test_r2_does_not_depend_on_the_unit_of_the_numbers(unit, offset):
    predicted_N, y_N = numbers(0)
    ones = np.ones((1, len(y_N)))
    expected = regression.r2(predicted_N, y_N)
    predicted_N, y_N = unit * predicted_N + offset, unit * y_N + offset
    assert regression.r2(predicted_N, y_N) == pytest.approx(expected, rel=1e-6)
    assert main_metric.main_metrics(predicted_N[:, None], y_N, "regression", ones)[0] == pytest.approx(
        expected, rel=1e-6
    )
