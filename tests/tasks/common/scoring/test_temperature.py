import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tasks.common.core.errors import GraftError, ParamsError
from tasks.common.heads.base import sigmoid, softmax
from tasks.common.heads.calibration import Calibration
from tasks.common.scoring import classification
from tasks.common.scoring.temperature import (
    calibrate,
    calibrate_like,
    check_promise,
    check_task,
    fit_temperature,
    summary,
)


def drawn(n=2000, k=5, sharpness=1.0, seed=0, spread=2.0):
    """Probabilities that are too sure by the factor `sharpness` in their logits, and classes drawn by the true ones."""
    rng = np.random.default_rng(seed)
    z_NK = rng.normal(size=(n, k)) * spread
    y_N = (softmax(z_NK).cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    return softmax(z_NK * sharpness), y_N


def drawn_each(n=600, k=4, sharpness=1.0):
    rng = np.random.default_rng(0)
    z_NK = rng.normal(size=(n, k)) * 2
    return sigmoid(z_NK * sharpness), (rng.uniform(size=(n, k)) < sigmoid(z_NK)).astype(float)


def found(p, y, weight=None, task="classification", **wanted):
    return calibrate(p, y, np.ones(len(p)) if weight is None else weight, task, **{"scale": True, **wanted})


def penalised(a, z_NK, y_N, weight_N):
    """The module's F, as its docstring writes it."""
    weight = weight_N / weight_N.mean()
    own = a * z_NK[np.arange(len(y_N)), y_N]
    return weight @ (np.log(np.exp(a * z_NK).sum(axis=1)) - own) + a - 1 - np.log(a)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_how_much_too_sure_a_head_is(sharpness):
    assert found(*drawn(8000, sharpness=sharpness)).temperature == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("sharpness", [0.4, 2.5])
def test_several_classes_an_image_have_one_temperature(sharpness):
    p_NK, y_NK = drawn_each(4000, sharpness=sharpness)
    assert found(p_NK, y_NK, task="multilabel").temperature == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_is_where_a_general_minimiser_finds_the_least_loss(seed):
    p_NK, y_N = drawn(60, 3, sharpness=0.3 + seed, seed=seed)
    weight = np.random.default_rng(seed).uniform(0.1, 3, 60)
    z_NK = np.log(p_NK)
    least = minimize_scalar(
        penalised, bounds=(0.05, 20), args=(z_NK, y_N, weight), method="bounded", options={"xatol": 1e-10}
    )
    assert 1 / fit_temperature(p_NK, y_N, weight) == pytest.approx(least.x, rel=1e-5)


def test_an_image_of_weight_two_counts_as_two_images():
    p_NK, y_N = drawn(200, sharpness=2.0)
    twice = np.arange(200) < 60
    weighted = fit_temperature(p_NK, y_N, np.where(twice, 2.0, 1.0))
    repeated = fit_temperature(np.concatenate([p_NK, p_NK[twice]]), np.concatenate([y_N, y_N[twice]]), np.ones(260))
    assert weighted == pytest.approx(repeated, rel=0.01)


def test_the_scale_of_the_weights_does_not_matter():
    p_NK, y_N = drawn(100, sharpness=2.0)
    one, other = (fit_temperature(p_NK, y_N, np.full(100, w)) for w in (1.0, 1e-6))
    assert one == pytest.approx(other)


@pytest.mark.parametrize("n", [1, 5, 34])
def test_validation_without_a_mistake_does_not_make_a_head_certain(n):
    calibrated = found(np.tile([[0.9, 0.1]], (n, 1)), np.zeros(n, int))
    assert 0.25 < calibrated.temperature < 1


def test_validation_without_a_right_answer_makes_a_head_unsure_and_no_more():
    p_NK = np.tile([[0.999, 0.001]], (50, 1))
    calibrated = found(p_NK, np.ones(50, int)).apply(p_NK)
    assert 0.5 < calibrated[0, 0] < 0.6


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_the_log_loss_on_validation_never_grows(task):
    for sharpness in (0.2, 1.0, 1.05, 6.0):
        p_NK, y = drawn(50, sharpness=sharpness) if task == "classification" else drawn_each(50, sharpness=sharpness)
        metrics = found(p_NK, y, task=task).metrics
        assert metrics["log_loss"] <= metrics["log_loss_before"] + 1e-12


def test_heads_that_give_probabilities_of_0_and_1_are_calibrated_too():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(5, [0.8, 0.15, 0.05], size=400)
    y_N = rng.choice(3, size=400, p=[0.8, 0.15, 0.05])
    calibrated = found(votes / 5, y_N)
    p_NK = calibrated.apply(votes / 5)
    assert calibrated.zero == pytest.approx(0.1)
    assert 0 < p_NK.min() < p_NK.max() < 1
    assert calibrated.metrics["calibration_error"] < calibrated.metrics["calibration_error_before"]


def test_the_metrics_are_those_of_the_probabilities_before_and_after():
    p_NK, y_N = drawn(500, sharpness=3.0)
    weight = np.random.default_rng(1).uniform(size=500)
    calibrated = found(p_NK, y_N, weight)
    after = calibrated.apply(p_NK)
    assert calibrated.metrics["images"] == 500
    assert calibrated.metrics["log_loss_before"] == classification.log_loss(p_NK, y_N, weight)
    assert calibrated.metrics["log_loss"] == classification.log_loss(after, y_N, weight)
    for name, p in (("calibration_error_before", p_NK), ("calibration_error", after)):
        expected = classification.expected_calibration_error(classification.reliability(p, y_N, 15))
        assert calibrated.metrics[name] == expected


def test_a_head_that_is_too_sure_has_a_smaller_calibration_error_on_other_images():
    (p_NK, y_N), (other_NK, other_N) = drawn(500, sharpness=3.0), drawn(4000, sharpness=3.0, seed=1)
    after = found(p_NK, y_N).apply(other_NK)
    before, now = (
        classification.expected_calibration_error(classification.reliability(p, other_N, 15)) for p in (other_NK, after)
    )
    assert now < before / 3


def test_nothing_is_done_that_was_not_asked_for():
    assert found(*drawn(50), scale=False) == Calibration()


def test_numbers_are_left_alone():
    assert found(np.ones((3, 1)), np.ones(3), task="regression") == Calibration()


def test_a_threshold_without_a_temperature_is_one_of_the_heads_own_scores():
    p_NK, y_N = drawn(2000, spread=4.0)
    calibrated = found(p_NK, y_N, scale=False, max_error=0.1, confidence=0.9)
    answers = p_NK.max(axis=1) > calibrated.threshold
    assert calibrated.temperature == 1.0
    assert calibrated.metrics["coverage"] == answers.mean()
    assert calibrated.metrics["error"] == pytest.approx((p_NK.argmax(axis=1) != y_N)[answers].mean())
    assert calibrated.metrics["answered"] == answers.sum()


def test_the_threshold_is_one_of_the_calibrated_scores():
    p_NK, y_N = drawn(2000, spread=4.0, sharpness=3.0)
    calibrated = found(p_NK, y_N, max_error=0.1)
    scores = calibrated.apply(p_NK).max(axis=1)
    assert calibrated.threshold in scores
    assert calibrated.metrics["answered"] == (scores > calibrated.threshold).sum()


def test_of_another_head_is_found_what_was_asked_for_of_the_first():
    p_NK, y_N = drawn(2000, spread=4.0)
    first = found(*drawn(2000, spread=5.0), max_error=0.1, confidence=0.8)
    again = calibrate_like(first, p_NK, y_N, np.ones(2000), "classification")
    assert again == found(p_NK, y_N, max_error=0.1, confidence=0.8)
    assert calibrate_like(Calibration(), p_NK, y_N, np.ones(2000), "classification") == Calibration()


def test_a_promise_that_cannot_be_made_names_the_key_the_value_what_could_be_and_what_to_do():
    p_NK, y_N = drawn(100)
    with pytest.raises(GraftError, match=r"head\.max_error") as caught:
        check_promise(found(p_NK, y_N, max_error=0.01))
    assert "max_error 0.01, with 100 validation images" in caught.value.got
    assert "more validation images" in caught.value.todo
    assert "head.max_error_confidence" in caught.value.todo


def test_the_least_that_could_be_promised_can_be():
    p_NK, y_N = drawn(300, spread=4.0)
    with pytest.raises(GraftError) as caught:
        check_promise(found(p_NK, y_N, max_error=0.001))
    least = float(caught.value.allowed.split()[2])
    check_promise(found(p_NK, y_N, max_error=least))
    with pytest.raises(GraftError):
        check_promise(found(p_NK, y_N, max_error=least - 0.002))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_share_of_wrong_answers_is_refused_where_an_image_has_no_single_label(task):
    with pytest.raises(ParamsError, match=r"head\.max_error") as caught:
        check_task(task, 0.05)
    assert f"task {task}" in caught.value.got
    assert "head.max_error: null" in caught.value.todo
    check_task(task, None)


def test_the_record_tells_threshold_and_promise_only_where_there_is_one():
    p_NK, y_N = drawn(2000, spread=4.0)
    assert "threshold" not in summary(found(p_NK, y_N))
    told = summary(found(p_NK, y_N, max_error=0.1))
    assert {"temperature", "threshold", "max_error", "confidence", "coverage", "error", "calibration_error"} <= set(
        told
    )
