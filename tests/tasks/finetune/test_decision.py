import json

import pytest

from tasks.finetune.decision import (
    Decision,
    Score,
    enough_minutes,
    more_images,
    whether_it_fits,
    whether_to_keep,
    why_not,
)
from tasks.finetune.params import FinetuneParams

SURE = 0.001


def never():
    raise AssertionError("the prediction costs seconds and was asked for in vain")


def test_off_never_trains():
    assert why_not(FinetuneParams(mode="off"), 10**6, 100, 200) == "`finetune.mode` is off"


def test_on_always_trains():
    params = FinetuneParams(mode="on")
    assert why_not(params, 1, 0, 10) == ""
    assert whether_it_fits(params, 3, 1, never) == (True, "`finetune.mode` is on", None)


def test_auto_does_not_train_on_too_few_images():
    reason = why_not(FinetuneParams(min_images=500), 499, 50, 100)
    assert reason == "499 training images are fewer than `finetune.min_images`, 500"


def test_auto_does_not_train_where_even_a_flawless_model_could_not_be_told_from_the_head():
    assert "the frozen head gets 3 of 200 validation images wrong" in why_not(FinetuneParams(), 1000, 3, 200)
    assert why_not(FinetuneParams(), 1000, 4, 200) == ""
    assert why_not(FinetuneParams(), 1000, None, 200) == ""


def test_auto_trains_when_the_budget_suffices():
    go, reason, minutes = whether_it_fits(FinetuneParams(budget_minutes=2), 10, 500, lambda: 2.0)
    assert (go, minutes) == (True, 2.0)
    assert "10 epochs of 500 images would take less than" in reason


def test_auto_does_not_train_when_it_would_take_too_long():
    go, reason, minutes = whether_it_fits(FinetuneParams(budget_minutes=2), 4, 5000, lambda: 2.1)
    assert (go, minutes) == (False, 2.1)
    assert "longer than `finetune.budget_minutes`, 2" in reason


@pytest.mark.parametrize(("predicted", "minutes"), [(0.3, 1), (2.1, 3), (4.0, 5)])
def test_the_advised_budget_has_room_for_a_prediction_that_was_too_low(predicted, minutes):
    assert enough_minutes(predicted) == minutes


@pytest.mark.parametrize(
    ("head", "finetuned", "p", "chosen", "words"),
    [
        (Score(0.8, 0.5), Score(0.9, 0.9), SURE, "finetune", "fine-tuned is better:"),
        (Score(0.9, 0.9), Score(0.8, 0.1), 0.99, "head", "not better"),
        (Score(0.9, 0.5), Score(0.9, 0.4), 0.5, "head", "not better"),
        (Score(0.8, 0.5), Score(0.81, 0.4), 0.2, "head", "no more than chance explains"),
    ],
    ids=["more accurate", "less accurate", "tie", "by chance"],
)
def test_only_the_better_is_kept_and_only_if_chance_does_not_explain_it(head, finetuned, p, chosen, words):
    found, reason = whether_to_keep(head, finetuned, p, 0.05)
    assert found == chosen
    assert words in reason


def test_what_cannot_keep_the_promise_is_not_kept():
    head, better = Score(0.8, 0.5), Score(0.9, 0.3)
    assert whether_to_keep(head, better, SURE, 0.05, keeps_promise=True)[0] == "finetune"
    chosen, reason = whether_to_keep(head, better, SURE, 0.05, keeps_promise=False)
    assert chosen == "head"
    assert "cannot guarantee `head.max_error`" in reason


def test_the_reason_to_keep_tells_the_metrics():
    reason = whether_to_keep(Score(0.8, 0.5), Score(0.9, 0.25), 0.0123, 0.05)[1]
    assert "accuracy 0.9000 against the frozen head's 0.8000 (paired test: p = 0.012)" in reason
    assert "log loss 0.2500 against 0.5000" in reason


def test_the_learning_curve_is_told_as_a_sentence():
    doubling = {"gain": 0.015, "low": 0.012, "high": 0.018, "reason": ""}
    told = more_images(doubling, "classification")
    assert told == "twice the images would give the head 1.5 points more accuracy (1.2 to 1.8)"
    assert "unknown: too few" in more_images({"reason": "too few"}, "classification")


def test_a_decision_can_be_written_as_json():
    decision = Decision("auto", False, "head", "why", 10, 2.0, {"head": Score(0.5, 1.0)})
    content = json.loads(json.dumps(decision.to_dict()))
    assert content["validation"] == {"head": {"accuracy": 0.5, "log_loss": 1.0}}
    assert (content["ran"], content["chosen"], content["p"]) == (False, "head", None)


@pytest.mark.parametrize(("task", "words"), [("multilabel", "mean average precision"), ("regression", "R²")])
def test_the_main_metric_of_the_task_decides(task, words):
    chosen, reason = whether_to_keep(Score(0.8, 0.1, task), Score(0.9, 0.5, task), SURE, 0.05)
    assert chosen == "finetune"
    assert f"validation {words} 0.9000 against the frozen head's 0.8000" in reason


def test_a_score_is_written_under_the_names_of_its_task():
    decision = Decision("on", True, "head", "why", 10, 2.0, {"head": Score(0.5, 1.0, "regression")})
    assert decision.to_dict()["validation"] == {"head": {"r2": 0.5, "mse": 1.0}}
