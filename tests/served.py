"""A registered model as those use it who know of MLflow only."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
from httpx import Response
from mlflow.models import convert_input_example_to_serving_input
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc import scoring_server
from mlflow.types.schema import Schema
from pandas.testing import assert_frame_equal
from starlette.testclient import TestClient


def check_served(uri: str, outputs: Schema) -> None:
    """What the model says to the example is of its signature, and is told over HTTP too; so is it without an image."""
    model = mlflow.pyfunc.load_model(uri)
    example = model.input_example
    answers = model.predict(example)
    assert list(answers.columns) == outputs.input_names()
    typed = _enforce_schema(answers, outputs)
    assert_frame_equal(typed, answers)
    assert_frame_equal(_enforce_schema(model.predict(example[:0]), outputs), typed[:0])
    client = TestClient(scoring_server.init(model))
    requests = {
        "records": {"dataframe_records": example.to_dict("records")},
        "split": json.loads(convert_input_example_to_serving_input(example)),
        "inputs": {"inputs": example.to_dict("list")},
    }
    for name, request in requests.items():
        response = client.post("/invocations", json=request)
        assert response.status_code == 200, f"{name}: {response.text}"
        assert response.json()["predictions"] == answers.to_dict("records")
    for text in (__file__, Path(__file__).as_uri(), "AAAA"):
        _check_refused(client.post("/invocations", json={"inputs": {"image": [text]}}))


def _check_refused(response: Response) -> None:
    """A client learns what is wrong with its image, and nothing of the server."""
    told = response.json()
    assert response.status_code == 400, response.text
    assert "input 0 is not an image that can be read" in told["message"]
    assert "Traceback" not in response.text
    assert "stack_trace" not in told
    assert "site-packages" not in response.text
