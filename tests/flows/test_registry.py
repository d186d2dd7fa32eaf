"""The registered model: what others load is what was tested."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from projects import Project

PREDICT = """
import base64, json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/graft@champion")
files = json.load(sys.stdin)
forms = {
    "path": files,
    "bytes": [open(file, "rb").read() for file in files],
    "base64": [base64.b64encode(open(file, "rb").read()).decode() for file in files],
}
seen = {name: model.predict(pd.DataFrame({"image": images})) for name, images in forms.items()}
print(json.dumps({name: table.to_dict("records") for name, table in seen.items()}))
print(json.dumps(sorted({"torch", "timm"} & set(sys.modules))), file=sys.stderr)
"""


def test_a_fresh_process_predicts_what_evaluate_saw(finished: Project) -> None:
    expected = pd.read_parquet(finished.root / "report" / "predictions.parquet")
    files = [str(finished.root / "data" / "raw" / path) for path in expected["path"]]
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", PREDICT, f"sqlite:///{finished.root}/mlflow.db"],
        input=json.dumps(files),
        capture_output=True,
        text=True,
        cwd="/",
        env=finished.environment(),
    )

    assert done.returncode == 0, done.stderr
    for rows in json.loads(done.stdout).values():
        assert [row["label"] for row in rows] == list(expected["predicted"])
        for row, (_, seen) in zip(rows, expected.iterrows(), strict=True):
            assert abs(row["score"] - seen["score"]) < 1e-4
            assert all(abs(p - seen[f"p_{name}"]) < 1e-4 for name, p in row["probabilities"].items())
    assert done.stderr.splitlines()[-1] == "[]", "neither torch nor timm is needed to predict"


def test_the_first_version_is_challenger_and_champion(finished: Project) -> None:
    version = finished.mlflow().get_model_version("graft", "1")

    assert sorted(version.aliases) == ["challenger", "champion"]
    assert version.tags["dvc.raw"].endswith(".dir")
    assert version.tags["backbone"] == "test_efficientnet"
    assert "Test accuracy" in version.description


def test_a_second_version_becomes_challenger_and_the_champion_stays(project: Project) -> None:
    project.set("head", l2_max=0.5)
    project.repro()
    client = project.mlflow()

    assert str(client.get_model_version_by_alias("graft", "challenger").version) == "2"
    assert str(client.get_model_version_by_alias("graft", "champion").version) == "1"
    assert project.json("models/registration.json")["version"] == "2"


def test_the_test_figures_are_tied_to_the_logged_model(finished: Project) -> None:
    registration = finished.json("models/registration.json")
    model = finished.mlflow().get_logged_model(registration["model_id"])
    figures = {metric.key: (metric.value, metric.dataset_digest) for metric in model.metrics}

    value, digest = figures["test_accuracy"]
    assert value == finished.json("metrics/evaluate.json")["accuracy"]
    assert digest.endswith(".dir")


def test_signature_example_and_requirements_are_there(finished: Project) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{finished.root}/mlflow.db")
    info = mlflow.models.get_model_info(finished.json("models/registration.json")["model_uri"])

    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.input_names() == ["label", "score", "probabilities"]
    assert info.saved_input_example_info is not None
    requirements = (finished.root / "models" / "package" / "requirements.txt").read_text(encoding="utf-8")
    assert "openvino==" in requirements
    assert "torch" not in requirements
