"""The tensors of each task, and requests that are none."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from graft.flows.serving.server.open_inference import elements, read, tensors
from graft.flows.serving.server.refusal import Refusal

IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"x").decode()]}


def test_several_labels_are_json_in_bytes() -> None:
    answers = [
        {"labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.8}},
        {"labels": [], "probabilities": {"a": 0.1, "b": 0.2}},
    ]
    labels, probabilities = tensors(answers, ["labels", "probabilities"], ["a", "b"])

    assert labels == {"name": "labels", "datatype": "BYTES", "shape": [2], "data": ['["a", "b"]', "[]"]}
    assert probabilities == {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": [0.9, 0.8, 0.1, 0.2]}


def test_a_number_and_its_interval_are_numbers() -> None:
    found = tensors([{"value": 2.5, "low": 1.0, "high": 3.0}], ["value", "low", "high"], [])

    assert [(one["name"], one["datatype"], one["data"]) for one in found] == [
        ("value", "FP64", [2.5]),
        ("low", "FP64", [1.0]),
        ("high", "FP64", [3.0]),
    ]


def test_abstaining_is_a_truth_value_and_a_set_is_json() -> None:
    abstain, classes = tensors([{"abstain": True, "set": ["a"]}], ["abstain", "set"], ["a"])

    assert (abstain["datatype"], abstain["data"]) == ("BOOL", [True])
    assert (classes["datatype"], classes["data"]) == ("BYTES", ['["a"]'])


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": [IMAGE, IMAGE]},
        {"inputs": ["image"]},
        {"inputs": [{**IMAGE, "datatype": "FP32"}]},
        {"inputs": [{**IMAGE, "shape": [2]}]},
        {"inputs": [{**IMAGE, "shape": [-1]}]},
        {"inputs": [{**IMAGE, "shape": [True]}]},
        {"inputs": [{**IMAGE, "shape": "1"}]},
        {"inputs": [IMAGE], "outputs": "label"},
        {"inputs": [IMAGE], "outputs": [{}]},
        {"inputs": [{**IMAGE, "parameters": {"binary_data_size": 7}}]},
    ],
)
def test_what_is_no_request_is_refused(document: Any) -> None:
    with pytest.raises(Refusal) as refused:
        read(json.dumps(document).encode(), None, 100, 4)

    assert refused.value.status == 400


def test_images_may_lie_in_nested_lists() -> None:
    text = IMAGE["data"][0]  # type: ignore[index]
    document = {"inputs": [{**IMAGE, "shape": [2, 1], "data": [[text], [text]]}]}

    assert read(json.dumps(document).encode(), None, 100, 4).images == [b"x", b"x"]


@pytest.mark.parametrize("length", ["x", "-1", "99999999999999", "١", "1000"])
def test_a_wrong_length_of_the_document_is_refused(length: str) -> None:
    with pytest.raises(Refusal):
        read(json.dumps({"inputs": [IMAGE]}).encode(), length, 100, 4)


@pytest.mark.parametrize("data", [b"\x01", struct.pack("<I", 5) + b"four", struct.pack("<I", 2**32 - 1)])
def test_binary_elements_that_are_cut_off_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="cut off"):
        elements(data, 4)


def test_many_empty_elements_are_refused() -> None:
    with pytest.raises(Refusal, match="more than 4 images"):
        elements(bytes(4 * 1000), 4)
