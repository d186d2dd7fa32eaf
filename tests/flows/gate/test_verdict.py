"""The gate: what each check asks, and that a bad model does not pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graft.flows.gate.contest import Check, Contest
from graft.flows.gate.verdict import incomparable, judge, unopposed
from graft.flows.runtime.params import GateParams

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
        "metric": "auto",
        "classes": CLASSES,
        "champion_classes": CLASSES,
        "unit_N": np.arange(len(more["target"])),  # type: ignore[arg-type]
        "earlier_N": np.ones(len(more["target"]), bool),  # type: ignore[arg-type]
        "left_out": 0,
        "latency": (10.0, 10.0),
    }
    return Contest(**{**values, **more})  # type: ignore[arg-type]


def right(count: int, of: int = 100) -> np.ndarray:
    return np.arange(of) < count


def outcome(verdict, name: str) -> str:
    return next(each.outcome for each in verdict.checks if each.name == name)


def found(verdict, name: str) -> str:
    return next(each.found for each in verdict.checks if each.name == name)


def test_an_equal_challenger_passes_and_the_verdict_tells_both_metrics() -> None:
    verdict = judge(contest(right(180, 200), right(180, 200)), (), PARAMS)

    assert verdict.result == "promote"
    assert verdict.sentence == "test accuracy 0.9000 against the champion's 0.9000 on 200 images"
    assert verdict.metrics == {"accuracy": 0.9, "champion_accuracy": 0.9, "earlier_looks": 0.0}


def test_too_few_images_to_tell_is_neither_a_promotion_nor_a_refusal() -> None:
    verdict = judge(contest(right(90), right(90)), (), PARAMS)

    assert verdict.result == "undecided"
    assert not verdict.passed
    assert outcome(verdict, "gain") == "too few images"
    assert "too few images to tell; about" in verdict.sentence
    assert "more test images would" in verdict.sentence


def test_the_number_of_images_that_would_tell_is_enough_where_the_models_are_equal() -> None:
    """100 images of which one in ten changes from right to wrong or back."""
    target = np.zeros(100, int)
    own, theirs = np.arange(100) >= 5, np.arange(100) < 95
    verdict = judge(contest(own, theirs, target), (), PARAMS)
    more = int(found(verdict, "gain").partition("about ")[2].partition(" more")[0].replace(",", ""))
    times = 1 + round(more / 100)
    many = judge(contest(np.tile(own, times), np.tile(theirs, times), np.tile(target, times)), (), PARAMS)
    assert many.result == "promote"
    half = times // 2
    few = judge(contest(np.tile(own, half), np.tile(theirs, half), np.tile(target, half)), (), PARAMS)
    assert outcome(few, "gain") in ("too few images", "passed")


def test_undecided_may_be_promoted_and_says_so_all_the_same() -> None:
    verdict = judge(contest(right(90), right(90)), (), GateParams(undecided="promote"))
    assert verdict.result == "promote"
    assert "too few images to tell" in verdict.sentence


def test_without_a_margin_no_number_of_images_is_promised() -> None:
    verdict = judge(contest(right(900, 1000), right(900, 1000)), (), GateParams(margin=0.0))
    assert verdict.result == "undecided"
    assert "without a margin" in verdict.sentence


def test_a_worse_challenger_is_refused_with_the_check_that_it_failed() -> None:
    verdict = judge(contest(right(80), right(90)), (), GateParams(undecided="promote"))

    assert verdict.result == "refuse"
    assert outcome(verdict, "gain") == "failed"
    assert "gain: -0.1000" in verdict.sentence


def test_a_loss_within_the_margin_passes_however_certain_it_is() -> None:
    own, theirs = right(9900, 10_000), right(10_000, 10_000)
    assert judge(contest(own, theirs), (), PARAMS).passed
    assert judge(contest(own, theirs), (), GateParams(margin=0.005)).result == "refuse"


def test_the_rule_better_wants_more_than_chance_and_than_the_least_gain() -> None:
    better = GateParams(rule="better")
    assert judge(contest(right(91), right(90)), (), better).result == "refuse"
    assert judge(contest(right(99), right(80)), (), better).passed
    assert judge(contest(right(99), right(80)), (), GateParams(rule="better", min_gain=0.15)).result == "refuse"


def test_images_of_one_group_count_as_one() -> None:
    """A loss of ten images is beyond chance, unless they are one patient's."""
    alone = judge(contest(right(190, 200), right(200, 200)), (), PARAMS)
    unit_N = np.minimum(np.arange(200), 190)
    grouped = judge(contest(right(190, 200), right(200, 200), unit_N=unit_N), (), PARAMS)
    assert outcome(alone, "gain") == "failed"
    assert outcome(grouped, "gain") == "too few images"
    assert "on 200 images in 191 groups" in grouped.sentence


def test_both_are_compared_by_the_metric_that_was_chosen() -> None:
    """The challenger ignores the rare class: it is more often right, and worth less."""
    target = np.r_[np.zeros(380, int), np.ones(20, int)]
    own = np.r_[np.ones(380, bool), np.zeros(20, bool)]
    theirs = np.r_[right(340, 380), right(15, 20)]
    lenient = {"max_class_drop": 1.0, "max_calibration_rise": 1.0}
    plain_accuracy = judge(contest(own, theirs, target, earlier_N=np.zeros(400, bool)), (), GateParams(**lenient))
    balanced = judge(
        contest(own, theirs, target, metric="balanced_accuracy", earlier_N=np.zeros(400, bool)),
        (),
        GateParams(**lenient),
    )
    assert outcome(plain_accuracy, "gain") == "passed"
    assert outcome(balanced, "gain") == "failed"
    assert balanced.metrics["balanced_accuracy"] == 0.5
    assert "test balanced accuracy" in balanced.sentence


def test_the_metric_on_images_that_came_since_is_told_beside_the_other() -> None:
    earlier = np.arange(200) < 150
    verdict = judge(contest(right(180, 200), right(180, 200), earlier_N=earlier), (), PARAMS)
    assert outcome(verdict, "new test images") == "noted"
    assert found(verdict, "new test images").startswith("accuracy 0.6000 (0.4")
    assert "on the 50 images that came since" in found(verdict, "new test images")
    assert verdict.metrics["new_accuracy"] == pytest.approx(0.6)
    assert verdict.metrics["new_images"] == 50
    assert outcome(judge(contest(right(90), right(90)), (), PARAMS), "new test images") == "not checked"


def test_earlier_looks_at_the_same_test_images_are_told() -> None:
    verdict = judge(contest(right(90), right(90), looks=7), (), PARAMS)
    assert outcome(verdict, "earlier looks") == "noted"
    assert found(verdict, "earlier looks") == "7 models have been judged on most of these test images before"
    assert verdict.metrics["earlier_looks"] == 7


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
    verdict = judge(contest(own, theirs, target), (), GateParams(margin=0.2))

    assert outcome(verdict, "gain") == "passed"
    assert outcome(verdict, "classes") == "failed"
    assert "bee 1.000 to 0.600" in verdict.sentence


def test_a_class_of_few_images_is_not_checked() -> None:
    target = np.r_[np.zeros(5, int), np.ones(95, int)]
    own, theirs = np.r_[np.zeros(5, bool), np.ones(95, bool)], np.r_[np.ones(5, bool), np.zeros(95, bool)]
    assert outcome(judge(contest(own, theirs, target), (), PARAMS), "classes") == "passed"


def test_one_class_of_many_must_be_further_down_than_the_only_one() -> None:
    """Of 100 classes one loses 7 of 30, which happens by chance among so many."""

    def of_classes(k: int) -> str:
        target = np.repeat(np.arange(k), 30)
        p_NK = np.full((len(target), k), 0.1 / max(k - 1, 1))
        p_NK[np.arange(len(target)), target] = 0.9
        own = p_NK.copy()
        own[:7] = np.roll(p_NK[:7], 1, axis=1)
        names = [f"c{n}" for n in range(k)]
        values = {"classes": names, "champion_classes": names, "target": target}
        verdict = judge(plain(**values, challenger=own, champion=p_NK), (), GateParams(margin=0.5))
        return outcome(verdict, "classes")

    assert of_classes(2) == "failed"
    assert of_classes(100) == "passed"


@pytest.mark.parametrize(("floor", "expected"), [(0.95, "failed"), ({"ant": 0.95}, "failed"), ({"bee": 0.5}, "passed")])
def test_every_class_reaches_its_minimum_recall(floor, expected) -> None:
    verdict = judge(contest(right(90), right(90)), (), GateParams(min_class_recall=floor))
    assert outcome(verdict, "minimum recall") == expected


def test_without_a_minimum_recall_nothing_is_checked() -> None:
    assert outcome(judge(contest(right(90), right(90)), (), PARAMS), "minimum recall") == "not checked"


def test_probabilities_that_are_worth_less_are_refused() -> None:
    target = np.arange(400) % 2
    sure, too_sure = (outputs(right(360, 400), target, sure=sure) for sure in (0.9, 1.0))
    own = contest(right(360, 400), right(360, 400), challenger=too_sure)
    assert outcome(judge(own, (), PARAMS), "calibration") == "failed"
    assert outcome(judge(replace(own, challenger=sure), (), PARAMS), "calibration") == "passed"


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
    assert verdict.sentence.startswith(
        "it cannot be compared with the champion: the champion is for regression; `graft"
    )
    assert verdict.rows()[-1]["outcome"] == "cannot be compared"
    assert all("`graft promote --anyway" in text for text in (verdict.sentence, verdict.rows()[-1]["allowed"]))


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
    assert (verdict.result == "refuse") == (expected == "failed")


def test_a_long_list_of_classes_is_whole_in_json_only() -> None:
    many = [f"class {number:03}" for number in range(900)]
    verdict = judge(contest(right(90), right(90), champion_classes=[*CLASSES, *many]), (), GateParams())

    row = next(each for each in verdict.rows() if each["check"] == "class list")
    fact = next(each for each in verdict.facts() if each["check"] == "class list")

    assert row["found"] == f"lost: {', '.join(many[:10])} and 890 more"
    assert row["found"] in verdict.sentence
    assert "class 010" not in verdict.sentence
    assert fact == {**row, "names": {"lost": many}}


def test_the_classes_below_their_minimum_are_named_whole_in_json_only() -> None:
    classes = [f"class {number:02}" for number in range(20)]
    target = np.repeat(np.arange(20), 20)
    p_NK = np.eye(20)[(target + 1) % 20] * 0.9 + 0.005
    given = plain(target=target, challenger=p_NK, champion=p_NK, classes=classes, champion_classes=classes)
    verdict = judge(given, (), GateParams(min_class_recall=0.5))

    assert found(verdict, "minimum recall").endswith("class 09 0.000 and 10 more")
    assert next(each["names"] for each in verdict.facts() if each["check"] == "minimum recall") == {"below": classes}


def test_numbers_are_compared_by_what_they_leave_unexplained() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=80)
    fine, rough = (target[:, None] + rng.normal(0, spread, (80, 1)) for spread in (0.1, 0.6))
    values = {"task": "regression", "classes": [], "champion_classes": [], "target": target}
    assert judge(plain(**values, challenger=fine, champion=rough), (), PARAMS).passed
    worse = judge(plain(**values, challenger=rough, champion=fine), (), PARAMS)
    assert worse.result == "refuse"
    assert [each.name for each in worse.checks] == [
        "gain", "earlier images", "new test images", "earlier looks", "latency",
    ]  # fmt: skip


def test_several_classes_an_image_are_compared_class_by_class() -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((60, 2)) < 0.5).astype(float)
    good = np.clip(target * 0.8 + 0.1 + rng.normal(0, 0.05, target.shape), 0, 1)
    bad = good.copy()
    bad[:, 1] = rng.random(60)
    verdict = judge(plain(task="multilabel", target=target, challenger=bad, champion=good), (), PARAMS)
    assert outcome(verdict, "classes") == "failed"
    assert "ant" in next(each.found for each in verdict.checks if each.name == "classes")


def test_a_class_that_is_ranked_at_random_is_noticed_though_no_decision_changes() -> None:
    """Average precision falls from 1 to the share of the class; every probability stays below 0.5."""
    rng = np.random.default_rng(0)
    target = np.zeros((400, 2))
    target[:20, 0], target[::2, 1] = 1, 1
    good = np.c_[np.where(target[:, 0] > 0, 0.4, 0.1), 0.1 + 0.8 * target[:, 1]]
    bad = np.c_[rng.permutation(good[:, 0]), good[:, 1]]
    assert ((bad >= 0.5) == (good >= 0.5)).all()
    verdict = judge(plain(task="multilabel", target=target, challenger=bad, champion=good), (), GateParams(margin=0.9))
    assert outcome(verdict, "classes") == "failed"
    assert found(verdict, "classes").startswith("bee 1.000 to 0.0")


def test_a_rise_of_the_calibration_error_by_chance_is_none() -> None:
    target = np.arange(20) % 2
    own, theirs = outputs(right(16, 20), target, sure=0.9), outputs(right(18, 20), target, sure=0.9)
    verdict = judge(contest(right(16, 20), right(18, 20), challenger=own, champion=theirs), (), PARAMS)
    assert "0.1000 against 0.0000 (p = " in found(verdict, "calibration")
    assert outcome(verdict, "calibration") == "passed"


def test_decisions_are_compared_as_the_class_weights_make_them() -> None:
    """Both models are calibrated to the true shares, so the most probable class is hardly ever the rare one."""
    target = np.repeat([0, 1], [900, 100])
    p_NK = np.where(target[:, None] == 1, [[0.6, 0.4]], [[0.95, 0.05]])
    weighed = p_NK * [1.0, 9.0] / (p_NK @ [1.0, 9.0])[:, None]
    given = {"challenger": p_NK, "champion": p_NK, "target": target, "metric": "balanced_accuracy"}

    both = judge(plain(**given, challenger_weighed=weighed, champion_weighed=weighed), (), GateParams(margin=0.5))
    lost = judge(plain(**given, champion_weighed=weighed), (), GateParams(margin=0.5))

    assert (both.result, both.metrics["balanced_accuracy"]) == ("promote", 1.0)
    assert (lost.result, lost.metrics["balanced_accuracy"]) == ("refuse", 0.5)
    assert "ant 1.000 to 0.000" in found(lost, "classes")


def test_the_calibration_is_that_of_the_score_of_the_label() -> None:
    target = np.repeat([0, 1], [50, 50])
    p_NK = np.full((100, 2), 0.5) + np.where(np.arange(100)[:, None] % 2 == 0, [[0.1, -0.1]], [[0.4, -0.4]])
    always_second = np.tile([[0.0, 1.0]], (100, 1))
    models = {"challenger": p_NK, "champion": p_NK, "target": target}

    verdict = judge(plain(**models, challenger_weighed=always_second, champion_weighed=always_second), (), PARAMS)

    assert found(verdict, "calibration").startswith("expected calibration error 0.2500 against 0.2500")
