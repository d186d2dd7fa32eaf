"""Documents for /invocations that have none of MLflow's forms."""

from __future__ import annotations

from typing import Any

import pytest

from graft.flows.serving.server.mlflow_form import values_of
from graft.flows.serving.server.refusal import Refusal


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"inputs": ["A"], "instances": ["A"]},
        {"inputs": 7},
        {"inputs": {"picture": ["A"]}},
        {"dataframe_records": {"image": 7}},
        {"dataframe_records": [{"picture": "A"}]},
        {"dataframe_split": []},
        {"dataframe_split": {"columns": ["picture"], "data": [["A"]]}},
        {"dataframe_split": {"columns": "image", "data": [["A"]]}},
        {"dataframe_split": {"columns": ["image", "other"], "data": [["A"]]}},
    ],
)
def test_it_is_refused(document: Any) -> None:
    with pytest.raises(Refusal) as refused:
        values_of(document)

    assert refused.value.status == 400


def test_other_columns_of_a_table_are_left_out() -> None:
    split = {"columns": ["name", "image"], "data": [["a", "A"], ["b", "B"]]}

    assert values_of({"dataframe_split": split}) == ["A", "B"]
