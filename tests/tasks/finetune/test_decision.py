import json

import pytest

from tasks.finetune.decision import Decision, Score, whether_to_keep, whether_to_train
from tasks.finetune.params import FinetuneParams


def never():
    raise AssertionError("the prediction costs seconds and was asked for in vain")


def test_what_cannot_keep_the_promise_is_not_kept():
    head, better = Score(0.8, 0.5), Score(0.9, 0.3)
    assert whether_to_keep(head, better, keeps_promise=True)[0] == "finetune"
    chosen, reason = whether_to_keep(head, better, keeps_promise=False)
    assert chosen == "head"
    assert "`head.max_error` cannot be promised" in reason


def test_off_never_trains():
    assert whether_to_train(FinetuneParams(mode="off"), 10**6, never) == (False, "`finetune.mode` is off", None)


def test_on_always_trains():
    assert whether_to_train(FinetuneParams(mode="on"), 1, never) == (True, "`finetune.mode` is on", None)


def test_auto_does_not_train_on_too_few_images():
    go, reason, minutes = whether_to_train(FinetuneParams(min_images=500), 499, never)
    assert (go, minutes) == (False, None)
    assert "499 training images are fewer than `finetune.min_images`, 500" in reason


def test_auto_trains_when_images_and_budget_suffice():
    params = FinetuneParams(min_images=500, budget_minutes=2, epochs=10)
    go, reason, minutes = whether_to_train(params, 500, lambda: 2.0)
    assert (go, minutes) == (True, 2.0)
    assert "10 epochs of 500 images would take less than" in reason


def test_auto_does_not_train_when_it_would_take_too_long():
    go, reason, minutes = whether_to_train(FinetuneParams(budget_minutes=2), 5000, lambda: 2.1)
    assert (go, minutes) == (False, 2.1)
    assert "more than `finetune.budget_minutes`, 2" in reason


@pytest.mark.parametrize(
    ("head", "finetuned", "chosen"),
    [
        (Score(0.8, 0.5), Score(0.9, 0.9), "finetune"),
        (Score(0.9, 0.9), Score(0.8, 0.1), "head"),
        (Score(0.9, 0.5), Score(0.9, 0.4), "finetune"),
        (Score(0.9, 0.4), Score(0.9, 0.5), "head"),
        (Score(0.9, 0.4), Score(0.9, 0.4), "head"),
    ],
    ids=["more accurate", "less accurate", "tie, smaller loss", "tie, larger loss", "the same"],
)
def test_the_more_accurate_is_kept_and_a_tie_goes_to_the_smaller_loss(head, finetuned, chosen):
    assert whether_to_keep(head, finetuned)[0] == chosen


def test_the_reason_to_keep_tells_the_figures():
    reason = whether_to_keep(Score(0.8, 0.5), Score(0.9, 0.25))[1]
    assert "accuracy 0.9000 against the frozen head's 0.8000" in reason
    assert "log loss 0.2500 against 0.5000" in reason


def test_a_decision_can_be_written_as_json():
    decision = Decision("auto", False, "head", "why", 10, 2.0, {"head": Score(0.5, 1.0)})
    content = json.loads(json.dumps(decision.to_dict()))
    assert content["validation"] == {"head": {"accuracy": 0.5, "log_loss": 1.0}}
    assert (content["ran"], content["chosen"]) == (False, "head")


@pytest.mark.parametrize(("task", "words"), [("multilabel", "mean average precision"), ("regression", "R²")])
def test_the_main_figure_of_the_task_decides(task, words):
    head, better = Score(0.8, 0.1, task), Score(0.9, 0.5, task)
    chosen, reason = whether_to_keep(head, better)
    assert chosen == "finetune"
    assert f"validation {words} 0.9000 against the frozen head's 0.8000" in reason


def test_a_score_is_written_under_the_names_of_its_task():
    decision = Decision("on", True, "head", "why", 10, 2.0, {"head": Score(0.5, 1.0, "regression")})
    assert decision.to_dict()["validation"] == {"head": {"r2": 0.5, "mse": 1.0}}
