import json

import numpy as np
import pytest

from tasks.common.heads.base import sigmoid, softmax
from tasks.common.heads.calibration import Calibration


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(40, 4)) * 3


def test_the_default_leaves_probabilities_as_they_are(logits):
    p_NK = softmax(logits)
    assert np.array_equal(Calibration().apply(p_NK), p_NK)


@pytest.mark.parametrize("temperature", [0.5, 1.7, 8.0])
def test_probabilities_become_the_softmax_of_the_logits_over_the_temperature(logits, temperature):
    scaled = Calibration(temperature=temperature).apply(softmax(logits))
    assert np.allclose(scaled, softmax(logits / temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.7, 8.0])
def test_several_classes_an_image_become_the_sigmoids_of_the_logits_over_the_temperature(logits, temperature):
    scaled = Calibration(temperature=temperature, each=True).apply(sigmoid(logits))
    assert np.allclose(scaled, sigmoid(logits / temperature))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.7, 20.0])
def test_no_image_gets_another_label(logits, temperature):
    p_NK = softmax(logits)
    assert np.array_equal(Calibration(temperature=temperature).apply(p_NK).argmax(axis=1), p_NK.argmax(axis=1))


@pytest.mark.parametrize("each", [False, True])
def test_probabilities_of_exactly_0_and_1_stay_in_order_and_finite(each):
    p_NK = np.array([[1.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
    scaled = Calibration(temperature=2.0, zero=0.05, each=each).apply(p_NK)
    assert np.isfinite(scaled).all()
    assert (np.argsort(-scaled, axis=1, kind="stable") == np.argsort(-p_NK, axis=1, kind="stable")).all()
    assert ((scaled > 0) & (scaled < 1)).all()


def test_a_probability_of_0_counts_as_what_is_given_for_it():
    scaled = Calibration(temperature=2.0, zero=0.04).apply(np.array([[0.96, 0.0]]))
    assert np.allclose(scaled, np.sqrt([[0.96, 0.04]]) / (np.sqrt(0.96) + 0.2))


def test_without_a_threshold_every_image_is_answered():
    assert Calibration().answers(np.array([[0.5, 0.5], [0.0, 0.0]])).all()


def test_only_a_score_above_the_threshold_is_answered():
    p_NK = np.array([[0.71, 0.29], [0.3, 0.7], [0.31, 0.69]])
    assert Calibration(threshold=0.7).answers(p_NK).tolist() == [True, False, False]


def test_what_is_saved_is_what_is_loaded(tmp_path):
    found = Calibration(1.3, 1e-3, True, 0.1 + 0.2, 0.05, 0.9, True, {"images": 7, "error": 1 / 3})
    found.save(tmp_path)
    assert Calibration.load(tmp_path) == found


def test_a_head_beside_which_nothing_lies_is_left_alone(tmp_path):
    assert Calibration.load(tmp_path) == Calibration()


def test_the_file_of_an_older_package_is_read_without_its_unknown_keys(tmp_path):
    (tmp_path / "calibration.json").write_text('{"temperature": 1.5, "threshold": 0.8, "figures": {"images": 7}}')
    assert Calibration.load(tmp_path) == Calibration(temperature=1.5, threshold=0.8)


def test_the_file_can_be_read(tmp_path):
    Calibration(temperature=1.5, threshold=0.8, max_error=0.05, confidence=0.9).save(tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert (content["temperature"], content["threshold"], content["max_error"]) == (1.5, 0.8, 0.05)


def test_the_promise_is_told_in_words():
    told = Calibration(threshold=0.8, max_error=0.05, confidence=0.9).promise()
    assert told["threshold"] == 0.8
    assert "above 0.8, at most 5.00% get a wrong label, with 90% confidence" in told["promise"]
    assert all(words in told["promise"] for words in ("independent", "before any refit", "strength and temperature"))
    assert Calibration().promise() == {}


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (Calibration(), True),
        (Calibration(max_error=0.1, threshold=0.0), True),
        (Calibration(max_error=0.1, threshold=None), False),
    ],
    ids=["nothing asked", "kept", "not kept"],
)
def test_what_was_asked_for_is_kept_where_there_is_a_threshold(found, kept):
    assert found.kept == kept
