"""Heads, calibration and decisions in ONNX are those of the package."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

from graft.tasks.common.heads.base import unit_length
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.knn import NeighbourHead
from graft.tasks.common.heads.mean import MeanHead
from graft.tasks.common.heads.mlp import MlpHead
from graft.tasks.common.heads.typicality import Typicality
from graft.tasks.export.answers import answers_of
from graft.tasks.export.builder import Builder

TASKS = ("classification", "multilabel", "regression")
D, K, M = 12, 3, 40
FEATURES = np.random.default_rng(1).normal(size=(5, D)).astype(np.float32)


def mlp(task, linear_head):
    last = linear_head(task, 6)
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(6, D)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    return MlpHead(*hidden, last.weight, last.bias, last.classes, task)


def knn(task, linear_head):
    rng, classes = np.random.default_rng(3), linear_head(task, D).classes
    target = {
        "classification": rng.integers(0, K, M).astype(np.int32),
        "multilabel": rng.integers(0, 2, (M, K)).astype(np.uint8),
        "regression": rng.normal(50, 9, M),
    }[task]
    unit = unit_length(rng.normal(size=(M, D))).astype(np.float16)
    return NeighbourHead(unit, target, rng.uniform(0.5, 2, M).astype(np.float32), 7, 0.1, classes, task)


def mean(task, linear_head):
    half = linear_head(task, D // 2)
    return MeanHead((half, replace(half, weight=-half.weight)), half.classes, task)


HEADS = {"linear": lambda task, make: make(task, D), "mlp": mlp, "knn": knn, "mean": mean}
CALIBRATIONS = {
    "none": Calibration(),
    "temperature": Calibration(temperature=1.7, zero=1e-6),
    "bias and decisions": Calibration(
        temperature=0.8, bias=[0.5, -0.25, 0.0], decision_weights=[1.0, 4.0, 2.0], threshold=0.55, set_least=0.2
    ),
}
SEVERAL = {
    "none": Calibration(each=True),
    "temperatures and thresholds": Calibration(
        each=True, zero=1e-6, temperatures=[0.5, 1.5, 2.0], thresholds=[0.2, 0.5, 0.9]
    ),
}


def answered(run_onnx, head, calibration, expected, name, known=None):
    build = Builder()
    found = {answer.name: answer.value for answer in answers_of(build, head, calibration, known, "features")}
    return run_onnx(build, {"features": FEATURES}, found[name], expected)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("calibration", CALIBRATIONS.values(), ids=CALIBRATIONS)
def test_the_class_its_probability_and_the_abstention_are_those_of_the_package(
    linear_head, run_onnx, kind, calibration
):
    head = HEADS[kind]("classification", linear_head)
    p_NK = calibration.apply(head.output(FEATURES))
    expected = {
        "probabilities": p_NK,
        "label": calibration.decide(p_NK, "classification"),
        "score": calibration.score(p_NK),
    }
    if calibration.threshold is not None:
        expected |= {"abstain": ~calibration.answers(p_NK), "set": calibration.sets(p_NK)}

    for name, values in expected.items():
        assert np.allclose(answered(run_onnx, head, calibration, values, name), values, atol=1e-5), name


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("calibration", SEVERAL.values(), ids=SEVERAL)
def test_several_labels_and_their_probabilities_are_those_of_the_package(linear_head, run_onnx, kind, calibration):
    head = HEADS[kind]("multilabel", linear_head)
    p_NK = calibration.apply(head.output(FEATURES))
    chosen_NK = calibration.decide(p_NK, "multilabel") > 0

    assert np.allclose(answered(run_onnx, head, calibration, p_NK, "probabilities"), p_NK, atol=1e-5)
    assert np.array_equal(answered(run_onnx, head, calibration, chosen_NK, "labels"), chosen_NK)


@pytest.mark.parametrize("kind", HEADS)
def test_a_number_and_its_interval_are_those_of_the_package(linear_head, run_onnx, kind):
    head, calibration = HEADS[kind]("regression", linear_head), Calibration(margin=2.5, interval_confidence=0.9)
    output_N1 = head.output(FEATURES)
    expected = dict(zip(("low", "high"), calibration.ends(output_N1)), value=output_N1[:, 0])

    for name, values in expected.items():
        assert np.allclose(answered(run_onnx, head, calibration, values, name), values, rtol=1e-5), name


def test_a_probability_of_zero_is_calibrated_as_in_the_package(linear_head, run_onnx):
    head = linear_head("classification", D)
    sure = replace(head, weight=head.weight * 300)
    calibration = Calibration(temperature=2.0)
    p_NK = calibration.apply(sure.output(FEATURES))

    assert np.allclose(answered(run_onnx, sure, calibration, p_NK, "probabilities"), p_NK, atol=1e-5)


GROUPS = {"each": np.arange(M), "fours": np.arange(M) // 4, "one": np.zeros(M, np.int64)}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_the_typicality_is_that_of_the_package(linear_head, run_onnx, groups):
    known = Typicality.of(np.random.default_rng(4).normal(size=(M, D)), groups)
    expected = known.p_values(FEATURES)

    found = answered(run_onnx, linear_head("classification", D), Calibration(), expected, "typicality", known)

    assert np.allclose(found, expected, atol=1e-5)
