import json

import pytest

from graft.tasks.common.data.task import metric_named
from graft.tasks.finetune.decision import (
    Cost,
    Decision,
    Score,
    enough_minutes,
    more_images,
    whether_it_fits,
    why_not,
)
from graft.tasks.finetune.params import FinetuneParams

HELD_OUT = {"images": 10, "units": 10, "folds": 0}


def test_off_never_trains():
    assert why_not(FinetuneParams(mode="off"), 10**6, 100, 200, 200) == "`finetune.mode` is off"


def test_on_always_trains():
    params = FinetuneParams(mode="on")
    assert why_not(params, 1, 0, 10, 10) == ""


def test_auto_does_not_train_on_too_few_images():
    reason = why_not(FinetuneParams(min_images=500), 499, 50, 100, 100)
    assert reason == "499 training images are fewer than `finetune.min_images`, 500"


def test_auto_does_not_train_where_even_a_flawless_model_could_not_be_told_from_the_head():
    assert "the frozen head gets 3 of 200 validation images wrong" in why_not(FinetuneParams(), 1000, 3, 200, 200)
    assert why_not(FinetuneParams(), 1000, 4, 200, 200) == ""
    assert why_not(FinetuneParams(), 1000, None, 200, 200) == ""


def test_errors_of_all_folds_count_where_they_decide():
    assert why_not(FinetuneParams(), 1000, 1, 50, 50) != ""
    assert why_not(FinetuneParams(), 1000, 1, 50, 500) == ""


def test_auto_trains_when_the_budget_suffices():
    epochs, reason, minutes = whether_it_fits(FinetuneParams(budget_minutes=2), 10, 500, Cost(20.0, 10.0))
    assert (epochs, minutes) == (10, 2.0)
    assert "10 epochs of 500 images would take less than" in reason


def test_auto_trains_fewer_epochs_where_not_all_fit():
    epochs, reason, minutes = whether_it_fits(FinetuneParams(budget_minutes=2), 10, 500, Cost(20.0, 15.0))
    assert (epochs, minutes) == (6, pytest.approx(110 / 60))
    assert "6 epochs of 500 images would take less than" in reason
    assert "10 would take longer" in reason


def test_auto_does_not_train_when_even_half_of_the_epochs_would_take_too_long():
    epochs, reason, minutes = whether_it_fits(FinetuneParams(budget_minutes=2), 4, 5000, Cost(60.0, 31.0))
    assert (epochs, minutes) == (0, pytest.approx(184 / 60))
    assert "longer than `finetune.budget_minutes`, 2" in reason


@pytest.mark.parametrize(("predicted", "minutes"), [(0.3, 1), (2.1, 3), (4.0, 5)])
def test_the_advised_budget_has_room_for_a_prediction_that_was_too_low(predicted, minutes):
    assert enough_minutes(predicted) == minutes


def test_the_learning_curve_is_told_as_a_sentence():
    doubling = {"gain": 0.015, "low": 0.012, "high": 0.018, "reason": ""}
    told = more_images(doubling, "classification")
    assert told == "twice the images would give the head 1.5 points more accuracy (1.2 to 1.8)"
    assert "unknown: too few" in more_images({"reason": "too few"}, "classification")


def test_a_decision_can_be_written_as_json():
    decision = Decision("auto", False, "head", "why", 10, 2.0, {"head": Score(0.5, 1.0)}, HELD_OUT)
    content = json.loads(json.dumps(decision.to_dict()))
    assert content["validation"] == {"head": {"accuracy": 0.5, "log_loss": 1.0}}
    assert (content["ran"], content["chosen"], content["p"]) == (False, "head", None)


def test_a_score_is_written_under_the_names_of_its_metric_and_task():
    score = Score(0.5, 1.0, metric_named("auto", "regression"), "regression")
    decision = Decision("on", True, "head", "why", 10, 2.0, {"head": score}, HELD_OUT)
    assert decision.to_dict()["validation"] == {"head": {"r2": 0.5, "mse": 1.0}}
    balanced = Score(0.7, 0.4, metric_named("balanced_accuracy", "classification"))
    assert balanced.named() == {"balanced_accuracy": 0.7, "log_loss": 0.4}
