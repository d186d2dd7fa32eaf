import numpy as np
import pytest
from sklearn.metrics import log_loss as scikit_log_loss

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.scoring.main_metric import loss
from graft.tasks.head.scores import Score

RNG = np.random.default_rng(0)
P_MK = RNG.dirichlet(np.ones(3), 20)
WEIGHT_M = RNG.uniform(0.5, 2, 20)


def test_the_loss_of_one_class_an_image_is_the_log_loss():
    y_M = RNG.integers(0, 3, 20)
    expected = scikit_log_loss(y_M, P_MK, sample_weight=WEIGHT_M, labels=[0, 1, 2])
    assert loss(P_MK, y_M, "classification", WEIGHT_M) == pytest.approx(expected)


def test_the_loss_of_several_is_the_mean_log_loss_of_the_classes():
    y_MK = RNG.integers(0, 2, (20, 3)).astype(float)
    each = [scikit_log_loss(y_MK[:, k], P_MK[:, k], sample_weight=WEIGHT_M, labels=[0, 1]) for k in range(3)]
    assert loss(P_MK, y_MK, "multilabel", WEIGHT_M) == pytest.approx(np.mean(each))


def test_the_loss_of_numbers_is_the_mean_squared_error():
    assert loss(np.array([[1.0], [3.0]]), np.array([2.0, 6.0]), "regression", np.array([1.0, 3.0])) == 7.0


def test_a_probability_of_nought_leaves_the_loss_finite():
    assert np.isfinite(loss(np.array([[0.0, 1.0]]), np.array([0]), "classification", np.ones(1)))
    assert np.isfinite(loss(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), "multilabel", np.ones(1)))


def test_of_several_classes_all_must_be_right():
    p_MK, y_MK = np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    assert Score.of(p_MK, y_MK, np.ones(2), "multilabel", "log_loss").accuracy == 0.5


def test_numbers_have_no_accuracy_and_the_smaller_error_is_better():
    near, far = (Score.of(np.array([[by]]), np.zeros(1), np.ones(1), "regression", "rmse") for by in (0.1, 0.2))
    assert np.isnan(near.accuracy)
    assert near.better_than(far)
    assert not far.better_than(near)


def test_what_is_as_good_is_not_better():
    score = Score(0.5, 0.9, 0.9)
    assert not score.better_than(score)


def test_what_is_no_number_is_worse_than_anything():
    target, weight_M = np.zeros(2), np.ones(2)
    broken, far = (Score.of(np.full((2, 1), by), target, weight_M, "regression", "rmse") for by in (np.nan, 1e3))
    assert broken.loss == np.inf
    assert far.better_than(broken)
    assert not broken.better_than(far)
    assert Score(9.0, 0.1, 0.1).better_than(Score(np.inf, 0.9, 0.9))
    assert not Score(np.inf, 0.9, 0.9).better_than(Score(9.0, 0.1, 0.1))


OF_ONE_OUTPUT = ("classification", "multilabel", "regression")
"""Heads for anomalies and decoders have searches of their own."""

SELECTS = [(task, metric.key) for task in OF_ONE_OUTPUT for metric in METRICS[task]]


@pytest.mark.parametrize(("task", "select"), SELECTS)
def test_every_metric_of_a_task_can_choose_and_prefers_the_candidate_that_is_right(task, select):
    y = {"classification": np.array([0, 1, 2, 1]), "multilabel": np.eye(3)[[0, 1, 2, 1]], "regression": np.arange(4.0)}
    right = np.arange(4.0)[:, None] if task == "regression" else 0.9 * np.eye(3)[[0, 1, 2, 1]] + 0.02
    good, poor = (Score.of(out, y[task], np.ones(4), task, select) for out in (right, right[::-1].copy()))
    assert good.chosen_by == pytest.approx(1.0)
    assert good.better_than(poor)
    assert not poor.better_than(good)


def test_a_metric_outweighs_the_loss_and_a_tie_goes_to_the_smaller_loss():
    y_M, weight_M = np.array([0, 0, 1]), np.ones(3)
    sure = np.array([[0.99, 0.01], [0.99, 0.01], [0.9, 0.1]])  # never finds the rare class
    fair, fairer = (np.array([[p, 1 - p], [p, 1 - p], [1 - p, p]]) for p in (0.51, 0.52))
    scores = [Score.of(out, y_M, weight_M, "classification", "balanced_accuracy") for out in (sure, fair, fairer)]
    assert [score.chosen_by for score in scores] == [0.5, 1.0, 1.0]
    assert scores[1].better_than(scores[0])
    assert scores[2].better_than(scores[1])
