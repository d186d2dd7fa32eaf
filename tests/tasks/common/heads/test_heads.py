import json
from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.heads.base import sigmoid, softmax, unit_length
from graft.tasks.common.heads.knn import NeighbourHead
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.load import load_head, load_linear_head
from graft.tasks.common.heads.mean import MeanHead
from graft.tasks.common.heads.mlp import MlpHead

D = 5
TASKS = ("classification", "multilabel", "regression")


def features(n=6, seed=1):
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def named(task):
    return [] if task == "regression" else ["a", "b", "c"]


def linear(task="classification"):
    rng = np.random.default_rng(0)
    k = len(named(task)) or 1
    weight, bias = rng.normal(size=(k, D)).astype(np.float32), rng.normal(size=k).astype(np.float32)
    return LinearHead(weight, bias, named(task), task)


def mlp(task="classification"):
    rng = np.random.default_rng(0)
    k = len(named(task)) or 1
    shapes = ((7, D), (7,), (k, 7), (k,))
    return MlpHead(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), named(task), task)


def neighbours(task="classification", m=40, **changes):
    rng = np.random.default_rng(0)
    stored = features(m, seed=2)
    target = {
        "classification": (np.arange(m) % 3).astype(np.int32),
        "multilabel": rng.integers(0, 2, (m, 3)).astype(np.uint8),
        "regression": rng.normal(50, 10, m),
    }[task]
    parts = {"weight": np.ones(m, np.float32), "k": 5, "temperature": 0.1, **changes}
    unit = unit_length(stored).astype(np.float16)
    return NeighbourHead(unit=unit, target=target, classes=named(task), task=task, **parts)


def mean(task="classification"):
    """Of a linear head on the first two features, and nearest neighbours on the others."""
    first, second = linear(task), neighbours(task)
    narrow = replace(first, weight=first.weight[:, :2])
    unit = unit_length(features(40, seed=2)[:, 2:]).astype(np.float16)
    return MeanHead((narrow, replace(second, unit=unit)), named(task), task)


@pytest.fixture(params=[linear, mlp, neighbours, mean], ids=["linear", "mlp", "neighbours", "mean"])
def make(request):
    """make(task) is a head of each kind."""
    return request.param


def test_softmax_gives_rows_that_sum_to_one():
    p_NK = softmax(np.random.default_rng(0).normal(size=(7, 4)) * 10)
    assert np.allclose(p_NK.sum(axis=1), 1)
    assert (p_NK > 0).all()


def test_softmax_agrees_with_a_hand_calculation():
    assert np.allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_softmax_does_not_overflow():
    assert np.allclose(softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]])


def test_sigmoid_agrees_with_a_hand_calculation_and_does_not_overflow():
    assert np.allclose(sigmoid(np.array([0.0, np.log(3), -np.log(3), 1e4, -1e4])), [0.5, 0.75, 0.25, 1, 0])


def test_probabilities_are_the_softmax_of_the_linear_map():
    head, x_ND = linear(), features()
    logits = np.array([[float(w @ x) + float(b) for w, b in zip(head.weight, head.bias, strict=True)] for x in x_ND])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(head.predict_proba(x_ND), expected, atol=1e-6)


def test_probabilities_of_several_classes_are_a_sigmoid_each():
    head, x_ND = linear("multilabel"), features()
    assert np.allclose(head.predict_proba(x_ND), 1 / (1 + np.exp(-(x_ND @ head.weight.T + head.bias))), atol=1e-6)


def test_a_linear_number_is_the_linear_map():
    head, x_ND = linear("regression"), features()
    assert np.allclose(head.predict(x_ND), x_ND @ head.weight[0] + head.bias[0], atol=1e-5)


def test_hidden_units_below_zero_are_nought():
    one = np.float32([[1.0, 0, 0, 0, 0]])
    head = MlpHead(one, np.float32([0]), np.float32([[2.0]]), np.float32([3]), [], "regression")
    assert head.predict(np.vstack([one, -one])).tolist() == [5.0, 3.0]


@pytest.mark.parametrize("task", TASKS)
def test_what_is_predicted_has_the_shape_and_type_of_the_task(make, task):
    predicted = make(task).predict(features(6))
    shape, dtype = {"classification": ((6,), np.int64), "multilabel": ((6, 3), np.int64)}.get(task, ((6,), np.float64))
    assert (predicted.shape, predicted.dtype) == (shape, dtype)


def test_the_class_predicted_is_the_likeliest(make):
    head = make("classification")
    assert (head.predict(features()) == head.predict_proba(features()).argmax(axis=1)).all()


def test_of_several_classes_those_at_least_as_likely_as_not_are_predicted(make):
    head = make("multilabel")
    assert (head.predict(features()) == (head.predict_proba(features()) >= 0.5)).all()


def test_probabilities_of_one_class_an_image_sum_to_one(make):
    p_NK = make("classification").predict_proba(features())
    assert np.allclose(p_NK.sum(axis=1), 1)
    assert (p_NK > 0).all()


def test_probabilities_of_several_classes_are_within_nought_and_one(make):
    p_NK = make("multilabel").predict_proba(features())
    assert ((p_NK > 0) & (p_NK < 1)).all()


def test_a_number_has_no_probabilities(make):
    with pytest.raises(ValueError, match="use predict"):
        make("regression").predict_proba(features())


@pytest.mark.parametrize("wrong", [np.zeros((3, D + 1)), np.zeros(D), np.zeros((2, 2, D))])
def test_features_of_another_shape_are_refused(make, wrong):
    with pytest.raises(ValueError, match=r"\(N, 5\) are needed, got \("):
        make("classification").predict(wrong)


def test_no_rows_give_no_predictions(make):
    assert make("classification").predict_proba(np.zeros((0, D))).shape == (0, 3)


def test_rows_in_blocks_are_predicted_as_rows_at_once(make, monkeypatch):
    head, x_ND = make("classification"), features(50)
    whole = head.predict_proba(x_ND)
    monkeypatch.setattr(blocks, "__defaults__", (7,))
    assert np.allclose(head.predict_proba(x_ND), whole, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_a_mean_is_that_of_its_parts_each_on_its_own_columns(task):
    head, x_ND = mean(task), features()
    first, second = head.parts
    assert np.allclose(head.output(x_ND), (first.output(x_ND[:, :2]) + second.output(x_ND[:, 2:])) / 2)


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_head_predicts_the_same(make, task, tmp_path):
    head = make(task)
    head.save(tmp_path)
    loaded = load_head(tmp_path)
    assert (type(loaded), loaded.task, loaded.classes) == (type(head), task, named(task))
    assert np.array_equal(loaded.predict(features()), head.predict(features()))


def test_a_head_that_is_saved_twice_has_the_same_bytes(make, tmp_path):
    for name in ("one", "two"):
        make("classification").save(tmp_path, name)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_a_saved_head_keeps_the_order_of_its_classes(tmp_path):
    LinearHead(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), ["z", "a", "m"]).save(tmp_path)
    assert load_head(tmp_path).classes == ["z", "a", "m"]


def test_two_heads_of_different_names_lie_side_by_side(tmp_path):
    head = linear()
    head.save(tmp_path, "one")
    LinearHead(head.weight * 2, head.bias, head.classes).save(tmp_path, "two")
    assert np.array_equal(load_linear_head(tmp_path, "two").weight, load_linear_head(tmp_path, "one").weight * 2)


def test_facts_are_kept_beside_what_the_head_is(tmp_path):
    linear().save(tmp_path, l2=0.5)
    told = {"kind": "linear", "task": "classification", "classes": ["a", "b", "c"], "l2": 0.5}
    assert json.loads((tmp_path / "head.json").read_text()) == told


def test_a_head_of_an_unknown_kind_is_refused(tmp_path):
    linear().save(tmp_path, kind="forest")
    with pytest.raises(DataError, match="forest"):
        load_head(tmp_path)


def test_a_head_of_another_kind_than_is_needed_is_refused(tmp_path):
    mlp().save(tmp_path)
    with pytest.raises(DataError, match=r"mlp(.|\n)*linear"):
        load_linear_head(tmp_path)


def votes(head, x_D):
    """The rule, written down plainly, on features in float64."""
    stored = features(len(head.unit), seed=2).astype(np.float64)
    cosine = stored @ x_D / np.linalg.norm(stored, axis=1) / np.linalg.norm(x_D)
    nearest = np.argsort(-cosine)[: head.k]
    return nearest, head.weight[nearest] * np.exp(cosine[nearest] / head.temperature)


@pytest.mark.parametrize("weight", [np.ones(40, np.float32), np.linspace(0.5, 3, 40, dtype=np.float32)])
def test_neighbours_vote_by_their_likeness_and_weight(weight):
    head = neighbours(weight=weight)
    share = np.array([weight[head.target == k].sum() for k in range(3)]) / weight.sum()
    for x_D, p_K in zip(features(), head.predict_proba(features()), strict=True):
        nearest, vote = votes(head, x_D)
        further = vote[-1] / weight[nearest[-1]] * weight.mean()
        chosen = np.array([vote[head.target[nearest] == k].sum() for k in range(3)])
        assert np.allclose(p_K, (chosen + further * share) / (vote.sum() + further), atol=5e-3)


def test_neighbours_of_several_classes_vote_for_each_by_itself():
    head = neighbours("multilabel")
    for x_D, p_K in zip(features(), head.predict_proba(features()), strict=True):
        nearest, vote = votes(head, x_D)
        further = vote[-1]
        expected = (vote @ head.target[nearest] + further * head.target.mean(axis=0)) / (vote.sum() + further)
        assert np.allclose(p_K, expected, atol=5e-3)


def test_a_number_is_the_neighbours_mean_by_their_votes():
    head = neighbours("regression")
    for x_D, number in zip(features(), head.predict(features()), strict=True):
        nearest, vote = votes(head, x_D)
        assert number == pytest.approx(np.average(head.target[nearest], weights=vote), abs=0.05)


def test_cosines_from_float16_are_those_of_float32_to_a_thousandth():
    stored, query = features(200, seed=2), features(20)
    head = neighbours(m=200, k=10)
    cosine, place = head.search(query)
    expected = unit_length(query) @ unit_length(stored).T
    assert np.abs(cosine - np.take_along_axis(expected, place, axis=1)).max() < 1e-3
    assert (-np.sort(-expected, axis=1)[:, :10] - cosine).max() < 1e-3


def test_the_nearest_of_equals_is_the_earlier():
    stored = np.repeat(features(1), 9, axis=0)
    head = neighbours(m=9, k=3)
    same = NeighbourHead(**{**vars(head), "unit": unit_length(stored).astype(np.float16)})
    assert same.search(features(2))[1].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_very_small_temperature_does_not_overflow():
    assert np.isfinite(neighbours(temperature=1e-6).predict_proba(features())).all()


def test_features_that_are_all_nought_have_neighbours_still():
    assert np.isfinite(neighbours().predict_proba(np.zeros((1, D)))).all()
