import json

import numpy as np
import pytest

from tasks.common.heads import LinearHead, softmax


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    return LinearHead(rng.normal(size=(3, 5)).astype(np.float32), np.float32([0.5, -1, 2]), ["a", "b", "c"])


def test_softmax_gives_rows_that_sum_to_one():
    p_NK = softmax(np.random.default_rng(0).normal(size=(7, 4)) * 10)
    assert np.allclose(p_NK.sum(axis=1), 1)
    assert (p_NK > 0).all()


def test_softmax_agrees_with_a_hand_calculation():
    assert np.allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_softmax_does_not_overflow():
    assert np.allclose(softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]])


def test_probabilities_are_the_softmax_of_the_linear_map(head):
    x_ND = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    logits = np.array([[float(w @ x) + float(b) for w, b in zip(head.weight, head.bias, strict=True)] for x in x_ND])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(head.predict_proba(x_ND), expected, atol=1e-6)


def test_a_saved_head_predicts_the_same(head, tmp_path):
    head.save(tmp_path)
    x_ND = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    assert np.array_equal(LinearHead.load(tmp_path).predict_proba(x_ND), head.predict_proba(x_ND))


def test_a_saved_head_keeps_the_order_of_its_classes(tmp_path):
    LinearHead(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), ["z", "a", "m"]).save(tmp_path)
    assert LinearHead.load(tmp_path).classes == ["z", "a", "m"]


def test_two_heads_of_different_names_lie_side_by_side(head, tmp_path):
    head.save(tmp_path, "one")
    LinearHead(head.weight * 2, head.bias, head.classes).save(tmp_path, "two")
    assert np.array_equal(LinearHead.load(tmp_path, "two").weight, LinearHead.load(tmp_path, "one").weight * 2)


def test_facts_are_kept_beside_the_classes(head, tmp_path):
    head.save(tmp_path, l2=0.5)
    assert json.loads((tmp_path / "head.json").read_text()) == {"classes": ["a", "b", "c"], "l2": 0.5}
