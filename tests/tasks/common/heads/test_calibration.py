import json
from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.heads.base import sigmoid, softmax
from graft.tasks.common.heads.calibration import Calibration


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


WEIGHED = Calibration(bias=[0.0, -2.0], decision_weights=[1.0, np.exp(2.0)])
"""Of a head that was trained with weights of 1 and e^2."""


def test_the_bias_is_added_to_the_logits(logits):
    scaled = Calibration(temperature=2.0, bias=[0.0, 1.0, -1.0, 0.5]).apply(softmax(logits))
    assert np.allclose(scaled, softmax(logits / 2 + [0.0, 1.0, -1.0, 0.5]))


def test_decisions_are_those_of_the_head_where_the_bias_is_that_of_the_class_weights():
    head_NK = softmax(np.random.default_rng(0).normal(size=(200, 2)) * 2)
    p_NK = WEIGHED.apply(head_NK)
    assert np.array_equal(WEIGHED.decide(p_NK, "classification"), head_NK.argmax(axis=1))
    assert np.allclose(WEIGHED.weighed(p_NK), head_NK)
    assert (p_NK.argmax(axis=1) == 1).sum() < (head_NK.argmax(axis=1) == 1).sum()


def test_the_score_is_the_calibrated_probability_of_the_label():
    p_NK = np.array([[0.8, 0.2], [0.95, 0.05]])  # 0.2 * e^2 is more than 0.8
    assert WEIGHED.decide(p_NK, "classification").tolist() == [1, 0]
    assert WEIGHED.score(p_NK).tolist() == [0.2, 0.95]
    assert replace(WEIGHED, threshold=0.3).answers(p_NK).tolist() == [False, True]


def test_each_class_has_its_temperature(logits):
    temperatures = [0.5, 1.0, 2.0, 4.0]
    scaled = Calibration(temperature=3.0, temperatures=temperatures, each=True).apply(sigmoid(logits))
    assert np.allclose(scaled, sigmoid(logits / temperatures))


def test_a_class_is_predicted_from_its_threshold_on():
    found = Calibration(each=True, thresholds=[0.3, 0.5, 0.9])
    p_NK = np.array([[0.31, 0.49, 0.91], [0.29, 0.51, 0.89], [0.0, 1.0, 1.0]])
    assert found.decide(p_NK, "multilabel").tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_thresholds_keep_the_order_of_the_images():
    p_NK = np.random.default_rng(0).uniform(size=(50, 3))
    weighed = Calibration(each=True, thresholds=[0.1, 0.5, 0.9]).weighed(p_NK)
    assert np.array_equal(np.argsort(weighed, axis=0), np.argsort(p_NK, axis=0))


@pytest.mark.parametrize("metric", [one.key for metrics in METRICS.values() for one in metrics])
def test_metrics_that_count_decisions_are_given_the_weighed_probabilities(metric):
    p_NK = np.array([[0.8, 0.2]])
    counts = metric in ("accuracy", "balanced_accuracy", "f1_macro", "kappa")
    assert (WEIGHED.judged(p_NK, metric).argmax() == 1) == counts


def test_numbers_are_decided_as_they_are():
    assert Calibration().decide(np.array([[1.5], [2.5]]), "regression").tolist() == [1.5, 2.5]


def test_a_prediction_set_has_the_label_and_all_classes_that_are_probable_enough():
    found = Calibration(set_least=0.3)
    p_NK = np.array([[0.6, 0.3, 0.1], [0.25, 0.25, 0.5], [0.29, 0.29, 0.42]])
    assert found.sets(p_NK).tolist() == [[True, True, False], [False, False, True], [False, False, True]]
    assert Calibration(set_least=0.99).sets(p_NK).sum(axis=1).tolist() == [1, 1, 1]


def test_the_ends_of_an_interval_are_a_margin_away():
    low, high = Calibration(margin=0.5).ends(np.array([[1.0], [-2.0]]))
    assert (low.tolist(), high.tolist()) == ([0.5, -2.5], [1.5, -1.5])


@pytest.mark.parametrize("call", [lambda c: c.sets(np.ones((1, 2))), lambda c: c.ends(np.ones((1, 1)))])
def test_sets_and_intervals_that_there_are_not_are_an_error(call):
    with pytest.raises(ValueError, match="this calibration has no"):
        call(Calibration())


def test_what_is_saved_is_what_is_loaded(tmp_path):
    found = Calibration(
        1.3, 1e-3, True, 0.1 + 0.2, 0.05, 0.9, True, [0.1, -0.2], [1.0, 3.0], [1.0, 2.9], [1.5, 0.7], [0.2, 0.5],
        0.3, 0.9, 0.05, 0.95, {"images": 7, "error": 1 / 3},
    )  # fmt: skip
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
        (Calibration(set_confidence=0.9, set_least=0.2), True),
        (Calibration(set_confidence=0.9, max_error=0.1, threshold=0.5), False),
    ],
    ids=["nothing asked", "kept", "not kept", "sets", "no sets"],
)
def test_what_was_asked_for_is_kept_where_there_is_a_threshold(found, kept):
    assert found.kept == kept
