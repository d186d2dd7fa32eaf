import math

import numpy as np
import pytest

from graft.tasks.common.scoring import classification

P = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])
Y = np.array([0, 1, 2, 2])


def test_accuracy_is_the_share_of_right_predictions():
    assert classification.accuracy(P, Y) == 0.75


def test_log_loss_is_the_mean_negative_log_of_the_right_class():
    expected = -(math.log(0.5) + math.log(0.8) + math.log(0.25) + math.log(0.6)) / 4
    assert classification.log_loss(P, Y) == pytest.approx(expected)


def test_log_loss_weighs_images():
    expected = -(3 * math.log(0.5) + math.log(0.8)) / 4
    assert classification.log_loss(P[:2], Y[:2], np.array([3.0, 1.0])) == pytest.approx(expected)


def test_log_loss_of_a_probability_of_zero_is_finite():
    assert math.isfinite(classification.log_loss(np.array([[0.0, 1.0]]), np.array([0])))


def test_confusion_has_true_classes_down_and_predicted_ones_across():
    assert classification.confusion(P.argmax(axis=1), Y, 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_confusion_has_a_row_for_a_class_that_does_not_occur():
    assert classification.confusion(np.array([0]), np.array([0]), 2).tolist() == [[1, 0], [0, 0]]


def test_precision_recall_and_f1_agree_with_a_hand_calculation():
    table = classification.per_class(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert table["a"] == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3, "support": 4})
    assert table["b"] == pytest.approx({"precision": 4 / 5, "recall": 4 / 6, "f1": 8 / 11, "support": 6})


def test_a_class_without_images_has_zeros_and_no_warning():
    with np.errstate(all="raise"):
        table = classification.per_class(np.array([[2, 0], [0, 0]]), ["a", "b"])
    assert table["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_reliability_gathers_images_by_confidence():
    p_NK = np.array([[0.55, 0.45], [0.65, 0.35], [0.95, 0.05], [0.9, 0.1]])
    rows = classification.reliability(p_NK, np.array([0, 1, 0, 0]), 2)
    assert rows == [{"bin": 0.75, "images": 4, "confidence": pytest.approx(0.7625), "accuracy": 0.75}]


def test_a_confidence_of_one_lies_in_the_last_bin():
    rows = classification.reliability(np.array([[1.0, 0.0]]), np.array([0]), 10)
    assert [row["bin"] for row in rows] == [0.95]


def test_the_calibration_error_agrees_with_a_hand_calculation():
    p_NK = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    rows = classification.reliability(p_NK, np.array([0, 1, 0, 0]), 10)
    assert classification.expected_calibration_error(rows) == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)


def test_the_classwise_calibration_error_agrees_with_a_hand_calculation():
    p_NK = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    # of either class: two images at 0.6 (one right), two at 0.9 (both right)
    assert classification.classwise_calibration_error(p_NK, np.array([0, 1, 0, 0]), 10) == pytest.approx(0.1)


def test_the_classwise_calibration_error_sees_a_shift_that_the_confidence_hides():
    p_NK = np.tile([0.7, 0.3], (10, 1))
    y_N = np.array([0] * 7 + [1] * 3)
    assert classification.classwise_calibration_error(p_NK, y_N, 10) == pytest.approx(0)
    shifted_NK = np.where(np.arange(10)[:, None] % 2, [0.7, 0.3], [0.3, 0.7])  # right in 7 of 10, as confident as that
    z_N = np.where(np.arange(10) < 9, shifted_NK.argmax(axis=1), 0)
    z_N[:3] = 0
    confident = classification.expected_calibration_error(classification.reliability(shifted_NK, z_N, 10))
    assert classification.classwise_calibration_error(shifted_NK, z_N, 10) > confident + 0.05


def test_the_classwise_calibration_error_of_several_classes_an_image_takes_each_by_itself():
    p_NK, has_NK = np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    assert classification.classwise_calibration_error(p_NK, has_NK, 10) == pytest.approx((0.4 + 0.2) / 2)
