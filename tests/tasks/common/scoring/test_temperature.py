import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from graft.tasks.common.core.errors import GraftError, ParamsError
from graft.tasks.common.heads.base import sigmoid, softmax
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.scoring import classification
from graft.tasks.common.scoring.temperature import (
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
    again = calibrate_like(first, p_NK, y_N, np.ones(2000), "classification", np.arange(2000))
    assert again == found(p_NK, y_N, max_error=0.1, confidence=0.8)
    assert calibrate_like(Calibration(), p_NK, y_N, np.ones(2000), "classification", np.arange(2000)) == Calibration()


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


def weighed_head(n=1500, seed=0):
    """Probabilities of a head that was trained with weights of 1 and 9, and classes of which one in ten is 1."""
    rng = np.random.default_rng(seed)
    y_N = (rng.uniform(size=n) < 0.1).astype(int)
    z_N = rng.normal(size=n) + 2.0 * y_N - 1.0
    return softmax(np.stack([np.zeros(n), 2 * z_N], axis=1)), y_N


def test_with_class_weights_probabilities_have_the_true_shares_and_labels_are_those_of_the_weights():
    p_NK, y_N = weighed_head()
    calibrated = found(p_NK, y_N, class_weight_K=np.array([1.0, 9.0]))
    after = calibrated.apply(p_NK)
    assert after.mean(axis=0)[1] == pytest.approx(y_N.mean(), abs=0.01)
    assert p_NK.mean(axis=0)[1] > 0.2
    assert calibrated.class_weights == [1.0, 9.0]
    assert calibrated.decision_weights == pytest.approx([1.0, 9.0], rel=0.3)
    assert np.array_equal(calibrated.decide(after, "classification"), p_NK.argmax(axis=1))
    assert calibrated.metrics["classwise_calibration_error"] < 0.03
    assert calibrated.metrics["classwise_calibration_error_before"] > 0.1


def test_without_calibration_class_weights_are_left_in_the_probabilities():
    assert found(*weighed_head(), scale=False, class_weight_K=np.array([1.0, 9.0])) == Calibration()


def test_the_guarantee_is_about_the_label_that_the_weights_decide():
    p_NK, y_N = weighed_head()
    calibrated = found(p_NK, y_N, class_weight_K=np.array([1.0, 9.0]), max_error=0.15)
    after = calibrated.apply(p_NK)
    answers = calibrated.answers(after)
    wrong = calibrated.decide(after, "classification") != y_N
    assert calibrated.metrics["answered"] == answers.sum()
    assert calibrated.metrics["error"] == pytest.approx(wrong[answers].mean())


def test_each_class_has_a_temperature_between_its_own_and_the_common_one():
    p_NK, y_NK = drawn_each(3000, k=2)
    sharp_NK = sigmoid(np.log(p_NK / (1 - p_NK)) * [0.5, 3.0])
    calibrated = found(sharp_NK, y_NK, task="multilabel")
    assert calibrated.temperatures == pytest.approx([0.5, 3.0], rel=0.2)
    assert calibrated.temperatures[0] < calibrated.temperature < calibrated.temperatures[1]


def test_with_few_images_classes_have_nearly_the_common_temperature():
    spread = {}
    for n in (10, 3000):
        p_NK, y_NK = drawn_each(n, k=2)
        sharp_NK = sigmoid(np.log(p_NK / (1 - p_NK)) * [0.5, 3.0])
        calibrated = found(sharp_NK, y_NK, task="multilabel")
        spread[n] = np.ptp(np.log(calibrated.temperatures))
    assert spread[10] < spread[3000] / 2


def test_thresholds_are_found_for_calibrated_probabilities_and_their_f1_is_cross_fitted():
    rng = np.random.default_rng(0)
    z_NK = rng.normal(size=(400, 3)) - 2
    p_NK, y_NK = sigmoid(z_NK), (rng.uniform(size=(400, 3)) < sigmoid(z_NK)).astype(float)
    calibrated = found(p_NK, y_NK, task="multilabel", thresholds="f1")
    assert all(threshold < 0.4 for threshold in calibrated.thresholds)
    assert calibrated.metrics["f1_macro"] > calibrated.metrics["f1_macro_at_half"]
    assert found(p_NK, y_NK, task="multilabel").thresholds is None


def test_an_interval_is_as_wide_as_the_errors_of_held_out_images():
    error_N = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))
    found_N = found(5 + error_N[:, None], np.full(99, 5.0), task="regression", interval_confidence=0.9)
    assert (found_N.margin, found_N.interval_confidence) == (90.0, 0.9)
    few = found(np.ones((8, 1)), np.ones(8), task="regression", interval_confidence=0.9)
    assert (few.margin, few.interval_confidence) == (None, 0.9)


def test_prediction_sets_have_the_true_class_of_as_many_held_out_images_as_asked():
    p_NK, y_N = drawn(999, spread=1.0)
    calibrated = found(p_NK, y_N, set_confidence=0.9)
    sets_NK = calibrated.sets(calibrated.apply(p_NK))
    assert sets_NK[np.arange(999), y_N].mean() == pytest.approx(0.9, abs=0.002)
    assert calibrated.metrics["set_size"] == sets_NK.sum(axis=1).mean()


def test_too_few_images_for_prediction_sets_are_an_error_that_says_how_many_it_takes():
    with pytest.raises(GraftError, match=r"head\.set_confidence") as caught:
        check_promise(found(*drawn(30), set_confidence=0.95, unit_N=np.arange(30) // 2))
    assert "30 validation images in 15 groups" in caught.value.got
    assert "at least 19" in caught.value.allowed


def test_all_that_was_asked_for_of_one_head_is_found_of_another():
    p_NK, y_N = weighed_head()
    asked = {"class_weight_K": np.array([1.0, 9.0]), "set_confidence": 0.8}
    first, again = found(*weighed_head(seed=1), **asked), found(p_NK, y_N, **asked)
    assert calibrate_like(first, p_NK, y_N, np.ones(1500), "classification", np.arange(1500)) == again
    q_NK, several = drawn_each()
    first = found(q_NK, several, task="multilabel", thresholds="f1")
    assert calibrate_like(first, q_NK, several, np.ones(600), "multilabel", np.arange(600)) == first
    numbers = np.ones((30, 1)), np.arange(30.0)
    first = found(*numbers, task="regression", interval_confidence=0.8)
    assert calibrate_like(first, *numbers, np.ones(30), "regression", np.arange(30)) == first


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("multilabel", "set_confidence", 0.9),
        ("regression", "set_confidence", 0.9),
        ("classification", "thresholds", "f1"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task, key, value):
    with pytest.raises(ParamsError, match=rf"head\.{key}"):
        check_task(task, None, **{key: value})
