"""What a nearest neighbours' head may say of features that are known but for rounding."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.common.heads.calibration import Calibration
from tasks.common.heads.knn import NeighbourHead, unit_length
from tasks.register.knn_tolerance import bounds

OFF = 0.01
TASKS = ("classification", "multilabel", "regression")


def head_of(task, seed, k=5, m=600, d=4, classes=3):
    """In few dimensions many cosines are within `OFF` of each other."""
    rng = np.random.default_rng(seed)
    unit_MD = unit_length(rng.normal(size=(m, d)).astype(np.float32)).astype(np.float16)
    target = {
        "classification": rng.integers(0, classes, m).astype(np.int32),
        "multilabel": rng.integers(0, 2, (m, classes)).astype(np.uint8),
        "regression": rng.normal(size=m),
    }[task]
    names = [] if task == "regression" else list("abc")[:classes]
    return NeighbourHead(unit_MD, target, rng.uniform(0.5, 2, m).astype(np.float32), k, 0.5, names, task)


def calibration_of(task, temperature):
    return Calibration() if task == "regression" else Calibration(temperature, 1e-3, each=task == "multilabel")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("task", TASKS)
def test_whatever_rounding_does_to_the_features_the_answer_is_between_the_bounds(task, temperature, seed):
    head, calibration = head_of(task, seed), calibration_of(task, temperature)
    rng = np.random.default_rng([seed, 1])
    x_ND = unit_length(rng.normal(size=(10, 4)).astype(np.float32))
    low_NK, high_NK = bounds(head, calibration, x_ND, OFF)
    before, changed = np.sort(head.search(x_ND)[1], axis=1), 0
    for _ in range(100):
        shift_ND = rng.normal(size=x_ND.shape)
        shift_ND *= 0.7 * OFF / np.linalg.norm(shift_ND, axis=1, keepdims=True)  # the units are in half precision too
        output_NK = calibration.apply(head.output(x_ND + shift_ND))
        assert (output_NK >= low_NK - 1e-9).all()
        assert (output_NK <= high_NK + 1e-9).all()
        changed += (np.sort(head.search(x_ND + shift_ND)[1], axis=1) != before).any()
    assert changed


@pytest.mark.parametrize("task", TASKS)
def test_where_the_neighbours_are_settled_there_is_no_leeway(task):
    head, calibration = head_of(task, 0), calibration_of(task, 2.0)
    x_ND = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    low_NK, high_NK = bounds(head, calibration, x_ND, 1e-7)
    expected_NK = calibration.apply(head.output(x_ND))
    assert low_NK == pytest.approx(expected_NK, abs=1e-5)
    assert high_NK == pytest.approx(expected_NK, abs=1e-5)


def test_neighbours_as_near_that_are_of_one_class_leave_no_leeway():
    head = head_of("classification", 1)
    head = replace(head, target=np.zeros_like(head.target), weight=np.ones_like(head.weight))
    low_NK, high_NK = bounds(head, Calibration(), np.ones((1, 4), np.float32), 1e-7)
    assert np.abs(high_NK - low_NK).max() < 1e-5


def test_of_two_images_that_are_the_same_one_votes():
    head = head_of("classification", 2, k=1, m=2)
    head = replace(head, unit=head.unit[[0, 0]], target=np.array([0, 2], np.int32), weight=np.ones(2, np.float32))
    low_NK, high_NK = bounds(head, Calibration(), np.ones((1, 4), np.float32), 1e-6)
    (output_K,) = head.output(np.ones((1, 4), np.float32))
    swapped_K = output_K[[2, 1, 0]]
    assert low_NK[0] == pytest.approx(np.minimum(output_K, swapped_K), abs=1e-4)
    assert high_NK[0] == pytest.approx(np.maximum(output_K, swapped_K), abs=1e-4)
