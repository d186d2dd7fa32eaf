"""What a client of each kind sends and gets."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from server_process import Served

from graft.tasks.register.serving import ImageClassifier


@pytest.fixture
def expected(package: Path, picture: bytes) -> dict[str, Any]:
    return ImageClassifier(package).predict([picture])[0]


@pytest.fixture
def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def form(files: dict[str, bytes]) -> tuple[bytes, str]:
    parts = [
        f'--mark\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in files.items()
    ]
    return b"".join([*parts, b"--mark--\r\n"]), "multipart/form-data; boundary=mark"


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    probabilities = pytest.approx(expected["probabilities"], abs=1e-5)
    return answer["label"] == expected["label"] and answer["probabilities"] == probabilities


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_raw_bytes_are_answered(served: Served, picture: bytes, expected: dict[str, Any], kind: str) -> None:
    answer = served.ask("POST", "/predict", picture, content_type=kind)

    assert answer.status == 200
    assert same(answer.document, expected)
    assert set(answer.document) == {*expected, "model"}
    assert answer.document["model"] == {"name": "graft", "version": ""}


def test_a_form_with_one_file_is_answered_like_raw_bytes(
    served: Served, picture: bytes, expected: dict[str, Any]
) -> None:
    body, kind = form({"a.png": picture})

    assert same(served.ask("POST", "/predict", body, content_type=kind).document, expected)


def test_each_file_of_a_form_is_answered_or_refused(served: Served, picture: bytes, expected: dict[str, Any]) -> None:
    body, kind = form({"a.png": picture, "b.txt": b"text", "c.png": picture})
    answer = served.ask("POST", "/predict", body, content_type=kind)

    assert answer.status == 200
    first, second, third = answer.document
    assert same(first, expected)
    assert same(third, expected)
    assert second == {"error": "this is not an image that can be read: not an image"}


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
def test_base64_is_answered(served: Served, text: str, expected: dict[str, Any], before: str) -> None:
    assert same(served.json("/predict", {"image": before + text}).document, expected)
    assert [same(one, expected) for one in served.json("/predict", {"images": [text, text]}).document] == [True, True]


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "file:///etc/passwd", "https://example.org/a.png", "../a.png", "\\\\host\\share", None, 1]
)
def test_no_path_and_no_url_is_opened(served: Served, value: Any) -> None:
    predicted = served.json("/predict", {"image": value})
    invoked = served.json("/invocations", {"inputs": {"image": [value]}})
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [value]}
    inferred = served.json("/v2/models/graft/infer", {"inputs": [tensor]})

    assert [answer.status for answer in (predicted, invoked, inferred)] == [422, 422, 422]
    assert "base64" in predicted.document["error"]
    assert invoked.document["error"].startswith("input 0 is not")


def test_a_request_of_unreadable_images_alone_is_refused(served: Served) -> None:
    answer = served.json("/predict", {"images": ["AAAA", "AAAA"]})

    assert answer.status == 422
    assert [set(one) for one in answer.document] == [{"error"}, {"error"}]


@pytest.mark.parametrize(
    "form",
    [
        lambda text: {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        lambda text: {"dataframe_records": [{"image": text}]},
        lambda text: {"instances": [text]},
        lambda text: {"instances": [{"image": text}]},
        lambda text: {"inputs": {"image": [text]}},
        lambda text: {"inputs": [[text]]},
    ],
)
def test_each_form_of_mlflow_is_answered(served: Served, text: str, expected: dict[str, Any], form: Any) -> None:
    (answer,) = served.json("/invocations", form(text)).document["predictions"]

    assert set(answer) == set(expected)
    assert same(answer, expected)


def test_the_open_inference_protocol_is_answered(served: Served, text: str, expected: dict[str, Any]) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [text, text]}
    answer = served.json("/v2/models/graft/infer", {"id": "7", "inputs": [tensor]}).document
    outputs = {one["name"]: one for one in answer["outputs"]}

    assert (answer["id"], answer["model_name"]) == ("7", "graft")
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": [expected["label"]] * 2}
    assert outputs["probabilities"]["shape"] == [2, 3]
    assert outputs["probabilities"]["data"][:3] == pytest.approx(list(expected["probabilities"].values()), abs=1e-5)


def test_its_binary_data_are_answered(served: Served, picture: bytes, expected: dict[str, Any]) -> None:
    data = struct.pack("<I", len(picture)) + picture
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("score", "label")]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    answer = served.ask("POST", "/v2/models/graft/infer", head + data, inference_header_content_length=str(len(head)))
    length = int(answer.headers["inference-header-content-length"])
    document, rest = json.loads(answer.body[:length]), answer.body[length:]

    assert [one["parameters"]["binary_data_size"] for one in document["outputs"]] == [8, len(rest) - 8]
    assert struct.unpack_from("<d", rest)[0] == pytest.approx(expected["score"], abs=1e-5)
    assert rest[12:].decode() == expected["label"]


def test_the_models_inputs_and_outputs_are_told(served: Served, expected: dict[str, Any]) -> None:
    told = served.ask("GET", "/v2/models/graft").document

    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in told["outputs"]] == list(expected)


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/graft/versions/9", "/predict/", "/static/../app.py"])
def test_other_addresses_are_refused_in_one_sentence(served: Served, path: str) -> None:
    answer = served.ask("GET", path)

    assert answer.status == 404
    assert set(answer.document) == {"error"}


@pytest.mark.parametrize("path", ["/ping", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/graft/ready"])
def test_health_is_told(served: Served, path: str) -> None:
    assert served.ask("GET", path).status == 200


def test_metrics_count_answers_refusals_and_times(served: Served, picture: bytes, expected: dict[str, Any]) -> None:
    lines = [
        f'graft_predictions_total{{label="{expected["label"]}"}}',
        'graft_refused_total{reason="unreadable"}',
        'graft_request_seconds_count{route="/predict",status="2xx"}',
        'graft_request_seconds_count{route="/predict",status="4xx"}',
        "graft_batch_images_sum",
    ]
    before = [served.metric(line) for line in lines]
    served.ask("POST", "/predict", picture)
    served.ask("POST", "/predict", b"text")

    assert [served.metric(line) - old for line, old in zip(lines, before, strict=True)] == [1, 1, 1, 1, 1]
    assert served.metric('graft_model_info{name="graft",version=""}') == 1
    assert served.metric("graft_queue_images") == 0


def test_the_pages_load_nothing_from_elsewhere(served: Served) -> None:
    for path in ("/", "/docs", "/static/page.js", "/static/page.css"):
        answer = served.ask("GET", path)
        assert answer.status == 200
        assert b"//" not in answer.body.replace(b"http://www.w3.org/2000/svg", b"")
    assert "default-src 'none'" in served.ask("GET", "/").headers["content-security-policy"]


def test_all_addresses_are_documented(served: Served) -> None:
    paths = served.ask("GET", "/openapi.json").document["paths"]

    assert {"/predict", "/invocations", "/v2/models/{name}/infer", "/metrics", "/version"} <= set(paths)
