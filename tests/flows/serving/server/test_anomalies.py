"""A server whose model detects anomalies: through each door the answers of the package, and where."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from server_process import Served, serving

from graft.flows.serving.server.journal import Journal, is_unsure
from graft.flows.serving.server.metrics import Metrics
from graft.flows.serving.server.settings import Settings
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def detector(anomalies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("detector"), "--model", str(anomalies / "package")) as server:
        yield server


@pytest.fixture(scope="module")
def defect(anomalies: Path) -> bytes:
    return (anomalies / "defect" / "01.png").read_bytes()


@pytest.fixture(scope="module")
def expected(anomalies: Path, defect: bytes) -> dict[str, Any]:
    """To 1e-4."""
    (answer,) = ImageClassifier(anomalies / "package").predict([defect])
    return {name: value if name == "anomalous" else pytest.approx(value, abs=1e-4) for name, value in answer.items()}


def test_every_door_gives_the_answer_of_the_package(detector: Served, defect: bytes, expected: dict[str, Any]) -> None:
    text = base64.b64encode(defect).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    model = {"name": "graft", "version": ""}

    assert detector.ask("POST", "/predict", defect).document == {**expected, "model": model}
    assert detector.json("/invocations", {"instances": [text]}).document == {"predictions": [expected]}
    told = detector.json("/v2/models/graft/infer", {"inputs": [tensor]}).document["outputs"]
    assert {one["name"]: one["data"][0] for one in told} == expected
    assert {one["name"]: one["datatype"] for one in told} == {"score": "FP64", "p_value": "FP64", "anomalous": "BOOL"}


def test_the_heat_map_comes_with_the_answer(detector: Served, defect: bytes, expected: dict[str, Any]) -> None:
    told = detector.ask("POST", "/predict?map=true", defect).document
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(told.pop("map")))))

    assert told.pop("model")
    assert told == expected
    assert pixels.shape == (60, 90, 3)
    assert (np.ptp(pixels[20:34, 20:34].astype(int), axis=2) > 20).all()
    assert detector.ask("POST", "/saliency", defect).headers["content-type"] == "image/png"


def test_of_several_pictures_each_has_its_map_or_its_refusal(detector: Served, defect: bytes) -> None:
    texts = [base64.b64encode(each).decode() for each in (defect, b"text", defect)]
    told = detector.json("/predict?map=1", {"images": texts}).document

    assert ["map" in one for one in told] == [True, False, True]
    assert told[0]["map"] == told[2]["map"]


@pytest.mark.parametrize("path", ["/predict?map=perhaps", "/predict?map="])
def test_what_is_neither_yes_nor_no_is_refused(detector: Served, defect: bytes, path: str) -> None:
    answer = detector.ask("POST", path, defect)

    assert (answer.status, answer.document["error"]) == (400, "`map` must be true or false")


def test_a_model_without_maps_says_so(served: Served, picture: bytes) -> None:
    answer = served.ask("POST", "/predict?map=true", picture)

    assert answer.status == 400
    assert "has no maps" in answer.document["error"]
    assert served.ask("POST", "/predict?map=false", picture).status == 200


def test_answers_are_counted_by_verdict(detector: Served, defect: bytes, anomalies: Path) -> None:
    before = [detector.metric(f'graft_predictions_total{{label="{name}"}}') for name in ("anomalous", "good")]
    detector.ask("POST", "/predict", defect)
    detector.ask("POST", "/predict", (anomalies / "good" / "01.png").read_bytes())
    after = [detector.metric(f'graft_predictions_total{{label="{name}"}}') for name in ("anomalous", "good")]

    assert np.subtract(after, before).tolist() == [1, 1]


def test_the_page_can_tell_what_the_model_does(detector: Served) -> None:
    assert detector.ask("GET", "/version").document["model"] == {"name": "graft", "version": "", "task": "anomaly"}


def test_the_log_has_verdict_score_and_p_value(tmp_path: Path) -> None:
    import pandas as pd

    journal = Journal(Settings(log=str(tmp_path / "log")), Metrics())
    journal.keep(b"picture", {"score": 3.0, "p_value": 0.01, "anomalous": True, "map": "AAAA"}, "1", 0.01)
    journal.close()
    (row,) = pd.concat(map(pd.read_parquet, (tmp_path / "log" / "answers").iterdir())).to_dict("records")

    assert (row["label"], row["score"], row["p_value"]) == ("anomalous", 3.0, 0.01)


@pytest.mark.parametrize(("p", "kept"), [(0.01, True), (0.08, True), (0.5, False)])
def test_pictures_that_are_nearly_anomalous_are_kept(p: float, kept: bool) -> None:
    assert is_unsure({"score": 1.0, "p_value": p, "anomalous": p < 0.05}) is kept


def test_the_addresses_tell_of_maps(detector: Served) -> None:
    document = json.loads(detector.ask("GET", "/openapi.json").body)

    assert document["paths"]["/predict"]["post"]["parameters"][0]["name"] == "map"
