"""The gate: what each check asks, and that a bad model does not pass."""

from __future__ import annotations

import numpy as np
import pytest

from flows.gate.verdict import Check, Contest, incomparable, judge, unopposed
from flows.runtime.params import GateParams

CLASSES = ["bee", "ant"]
PARAMS = GateParams()


def outputs(right_N: np.ndarray, target: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Probabilities of two classes that are right where it is said."""
    said = np.where(right_N, target, 1 - target)
    p_NK = np.full((len(target), 2), 1 - sure)
    p_NK[np.arange(len(target)), said] = sure
    return p_NK


def contest(own: np.ndarray, theirs: np.ndarray, target: np.ndarray | None = None, **more: object) -> Contest:
    target = np.arange(len(own)) % 2 if target is None else target
    given: dict[str, object] = {"challenger": outputs(own, target), "champion": outputs(theirs, target), **more}
    return plain(target=target, **given)


def plain(**more: object) -> Contest:
    values: dict[str, object] = {
        "task": "classification",
        "classes": CLASSES,
        "champion_classes": CLASSES,
        "earlier_N": np.zeros(len(more["target"]), bool),  # type: ignore[arg-type]
        "left_out": 0,
        "latency": (10.0, 10.0),
    }
    return Contest(**{**values, **more})  # type: ignore[arg-type]


def right(count: int, of: int = 100) -> np.ndarray:
    return np.arange(of) < count


def outcome(verdict, name: str) -> str:
    return next(each.outcome for each in verdict.checks if each.name == name)


def test_an_equal_challenger_passes_and_the_verdict_tells_both_metrics() -> None:
    verdict = judge(contest(right(90), right(90)), (), PARAMS)

    assert verdict.passed
    assert verdict.sentence == "test accuracy 0.9000 against the champion's 0.9000 on 100 images"
    assert verdict.metrics == {"accuracy": 0.9, "champion_accuracy": 0.9}


def test_a_worse_challenger_is_refused_with_the_check_that_it_failed() -> None:
    verdict = judge(contest(right(80), right(90)), (), PARAMS)

    assert not verdict.passed
    assert outcome(verdict, "gain") == "failed"
    assert "gain: -0.1000" in verdict.sentence


def test_a_small_loss_passes_if_it_is_allowed_and_no_more_than_chance() -> None:
    assert judge(contest(right(89), right(90)), (), GateParams(min_gain=-0.02)).passed
    assert not judge(contest(right(70), right(90)), (), GateParams(min_gain=-0.5)).passed, "more than chance"


def test_the_rule_better_wants_more_than_chance() -> None:
    better = GateParams(rule="better")
    assert not judge(contest(right(91), right(90)), (), better).passed
    assert judge(contest(right(99), right(80)), (), better).passed


def test_labels_that_came_with_new_images_cannot_speak_for_themselves() -> None:
    """A mislabelled batch agrees with the model that learned it, which is worse on the earlier images."""
    own, theirs = np.r_[right(60), np.ones(100, bool)], np.r_[right(90), np.zeros(100, bool)]
    earlier = np.arange(200) < 100
    verdict = judge(contest(own, theirs, earlier_N=earlier), (), PARAMS)

    assert outcome(verdict, "gain") == "passed"
    assert outcome(verdict, "earlier images") == "failed"
    assert not verdict.passed


def test_a_class_may_not_get_worse_for_the_good_of_the_others() -> None:
    target = np.repeat([0, 1], 50)
    own = np.r_[np.arange(50) < 30, np.ones(50, bool)]
    theirs = np.r_[np.ones(50, bool), np.arange(50) < 30]
    verdict = judge(contest(own, theirs, target), (), PARAMS)

    assert outcome(verdict, "gain") == "passed"
    assert outcome(verdict, "classes") == "failed"
    assert "bee 1.000 to 0.600" in verdict.sentence


def test_a_class_of_few_images_is_not_checked() -> None:
    target = np.r_[np.zeros(5, int), np.ones(95, int)]
    own, theirs = np.r_[np.zeros(5, bool), np.ones(95, bool)], np.r_[np.ones(5, bool), np.zeros(95, bool)]
    assert outcome(judge(contest(own, theirs, target), (), PARAMS), "classes") == "passed"


@pytest.mark.parametrize(("floor", "expected"), [(0.95, "failed"), ({"ant": 0.95}, "failed"), ({"bee": 0.5}, "passed")])
def test_every_class_reaches_its_minimum_recall(floor, expected) -> None:
    verdict = judge(contest(right(90), right(90)), (), GateParams(min_class_recall=floor))
    assert outcome(verdict, "minimum recall") == expected


def test_without_a_minimum_recall_nothing_is_checked() -> None:
    assert outcome(judge(contest(right(90), right(90)), (), PARAMS), "minimum recall") == "not checked"


def test_probabilities_that_are_worth_less_are_refused() -> None:
    target = np.arange(100) % 2
    sure = outputs(right(90), target, sure=0.9)
    too_sure = outputs(right(90), target, sure=1.0)
    assert outcome(judge(contest(right(90), right(90), challenger=too_sure), (), PARAMS), "calibration") == "failed"
    assert outcome(judge(contest(right(90), right(90), challenger=sure), (), PARAMS), "calibration") == "passed"


@pytest.mark.parametrize(
    ("latency", "limit", "expected"),
    [((29.0, 10.0), None, "passed"), ((31.0, 10.0), None, "failed"), ((12.0, 10.0), 11.0, "failed")],
)
def test_a_slow_model_is_refused(latency, limit, expected) -> None:
    verdict = judge(contest(right(90), right(90), latency=latency), (), GateParams(max_latency_ms=limit))
    assert outcome(verdict, "latency") == expected


def test_what_the_data_failed_fails_the_gate_too() -> None:
    failed = Check("leaks", "failed", "9 of 10 test images are copies", "1 % or less")
    assert not judge(contest(right(90), right(90)), (failed,), PARAMS).passed
    assert not unopposed((failed,), "nothing to compare with").passed
    assert unopposed((), "nothing to compare with").passed


def test_a_champion_of_another_kind_is_a_persons_decision() -> None:
    verdict = incomparable((), "the champion is for regression")
    assert not verdict.passed
    assert verdict.sentence == "cannot be compared: the champion is for regression"
    assert verdict.rows()[-1]["outcome"] == "cannot be compared"
    assert "graft promote" in verdict.rows()[-1]["allowed"]


@pytest.mark.parametrize(
    ("theirs", "rule", "expected", "found"),
    [
        (["ant", "bee"], "refuse", "passed", "the same classes"),
        (["bee"], "refuse", "noted", "new: ant"),
        (["ant", "bee", "wasp"], "refuse", "failed", "lost: wasp"),
        (["bee", "wasp"], "refuse", "failed", "lost: wasp; new: ant"),
        (["bee", "wasp"], "note", "noted", "lost: wasp; new: ant"),
    ],
)
def test_a_lost_class_refuses_unless_it_is_allowed_and_new_ones_are_noted(theirs, rule, expected, found) -> None:
    verdict = judge(contest(right(90), right(90), champion_classes=theirs), (), GateParams(lost_classes=rule))
    check = next(each for each in verdict.checks if each.name == "class list")
    assert (check.outcome, check.found) == (expected, found)
    assert verdict.passed == (expected != "failed")


def test_numbers_are_compared_by_what_they_leave_unexplained() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=80)
    fine, rough = (target[:, None] + rng.normal(0, spread, (80, 1)) for spread in (0.1, 0.6))
    values = {"task": "regression", "classes": [], "champion_classes": [], "target": target}
    assert judge(plain(**values, challenger=fine, champion=rough), (), PARAMS).passed
    worse = judge(plain(**values, challenger=rough, champion=fine), (), PARAMS)
    assert not worse.passed
    assert {each.name for each in worse.checks} == {"gain", "earlier images", "latency"}


def test_several_classes_an_image_are_compared_class_by_class() -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((60, 2)) < 0.5).astype(float)
    good = np.clip(target * 0.8 + 0.1 + rng.normal(0, 0.05, target.shape), 0, 1)
    bad = good.copy()
    bad[:, 1] = rng.random(60)
    verdict = judge(plain(task="multilabel", target=target, challenger=bad, champion=good), (), PARAMS)
    assert outcome(verdict, "classes") == "failed"
    assert "ant" in next(each.found for each in verdict.checks if each.name == "classes")
