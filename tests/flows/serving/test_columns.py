"""Answers as rows, as JSON, and as lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graft.flows.serving.columns import Columns, document, lines, unlike
from graft.flows.serving.predict import Answer
from graft.flows.serving.sources import Named

ONE = {
    "label": "bee",
    "score": 0.6,
    "probabilities": {"ant": 0.3, "bee": 0.6, "fly": 0.1},
    "abstain": True,
    "set": ["bee", "ant"],
    "typicality": 0.5,
}
SEVERAL = {"labels": ["ant", "fly"], "probabilities": {"ant": 0.9, "bee": 0.2, "fly": 0.6}}
ANOMALY = {"score": 3.5, "p_value": 0.0123, "anomalous": True}
NUMBER = {"value": 3.25, "low": 2.0, "high": 4.5}


def columns(found: dict[str, Any], task: str, **more: Any) -> Columns:
    classes = list(found.get("probabilities", {}))
    return Columns(SimpleNamespace(task=task, classes=classes, columns=list(found)), **more)  # type: ignore[arg-type]


def answer(found: dict[str, Any], error: str = "") -> Answer:
    return Answer(Named("a.png", Path("a.png")), found, error)


def test_the_first_columns_are_path_label_and_score() -> None:
    assert list(columns(ONE, "classification").types)[:3] == ["path", "label", "score"]
    assert list(columns(SEVERAL, "multilabel").types)[:3] == ["path", "label", "score"]


def test_a_row_has_all_that_the_model_says() -> None:
    row = columns(ONE, "classification", top=2, probabilities=True).row(answer(ONE))

    assert row == {
        "path": "a.png", "label": "bee", "score": 0.6, "abstain": True, "set": "bee|ant", "typicality": 0.5,
        "label_2": "ant", "score_2": 0.3, "p_ant": 0.3, "p_bee": 0.6, "p_fly": 0.1, "error": None,
    }  # fmt: skip


def test_more_labels_than_classes_are_those_that_there_are() -> None:
    assert [name for name in columns(ONE, "classification", top=9).types if name.startswith("label")] == [
        "label", "label_2", "label_3",
    ]  # fmt: skip


def test_several_labels_are_joined_as_in_tables_for_import() -> None:
    row = columns(SEVERAL, "multilabel").row(answer(SEVERAL))

    assert (row["label"], row["score"]) == ("ant|fly", 0.9)


def test_a_number_has_its_interval() -> None:
    row = columns(NUMBER, "regression").row(answer(NUMBER))

    assert row == {"path": "a.png", "value": 3.25, "low": 2.0, "high": 4.5, "error": None}


def test_a_file_that_could_not_be_read_has_a_row_with_the_reason() -> None:
    row = columns(ONE, "classification").row(answer({}, "not an image"))

    assert {key: value for key, value in row.items() if value is not None} == {"path": "a.png", "error": "not an image"}


def test_json_has_all_probabilities_or_the_highest() -> None:
    assert document(answer(ONE), None)["probabilities"] == ONE["probabilities"]
    assert document(answer(ONE), 2)["probabilities"] == {"bee": 0.6, "ant": 0.3}
    assert document(answer({}, "damaged"), 2) == {"path": "a.png", "error": "damaged"}


def test_the_answer_comes_first_even_if_another_class_is_more_probable() -> None:
    biased = {**ONE, "label": "ant", "score": 0.3}

    assert next(iter(document(answer(biased), 2)["probabilities"])) == "ant"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ONE, ["a.png   60.0%  bee  (not sure)", "        30.0%  ant"]),
        (SEVERAL, ["a.png  ant 90.0%, fly 60.0%"]),
        ({**SEVERAL, "labels": []}, ["a.png  (none)"]),
        (NUMBER, ["a.png  3.25  2 to 4.5"]),
    ],
)
def test_lines_say_it_in_words(found: dict[str, Any], expected: list[str]) -> None:
    assert list(lines(answer(found), 2, 5)) == expected


def test_an_image_unlike_all_that_was_learned_is_said_to_be() -> None:
    assert unlike({"typicality": 0.049})
    assert not unlike({"typicality": 0.05})
    assert not unlike({})


def test_an_anomaly_is_a_score_a_p_value_and_a_verdict() -> None:
    row = columns(ANOMALY, "anomaly", top=3, probabilities=True).row(answer(ANOMALY))

    assert row == {"path": "a.png", **ANOMALY, "error": None}
    assert list(lines(answer(ANOMALY), 1, 6)) == ["a.png   anomalous  score 3.5  p 0.012"]
    assert document(answer(ANOMALY), 2) == {"path": "a.png", **ANOMALY}
