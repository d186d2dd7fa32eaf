"""The packaged model in MLflow: logged, registered, and named by aliases."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, Map, Schema

from tasks.common.errors import GraftError
from tasks.common.files import read_json, write_json
from tasks.common.paths import Paths

from .tracking import Tracker
from .versioning import raw_hash

CHALLENGER, CHAMPION = "challenger", "champion"

FINGERPRINT = "features.fingerprint"
"""The tag of a version that names the features its head was trained on."""

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), "image")]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "score"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    ),
)


def register_model(tracker: Tracker, run_id: str, name: str) -> dict[str, Any]:
    """Logs models/package under the run, registers it, and moves the alias `challenger` to it.

    The first version of a name becomes `champion` as well. Writes and returns models/registration.json.
    """
    paths = tracker.paths
    mlflow.set_tracking_uri(tracker.uri)  # the recorder's own: MLflow sets the variable as well
    info = _log_model(paths, run_id)
    version = mlflow.register_model(info.model_uri, name, await_registration_for=60)
    client = tracker.client
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    if champion(tracker, name) is None:
        client.set_registered_model_alias(name, CHAMPION, version.version)
    _describe(tracker, run_id, name, version.version)
    _log_test_metrics(tracker, run_id, info.model_id)
    registration = {
        "name": name,
        "version": str(version.version),
        "model_id": info.model_id,
        "model_uri": info.model_uri,
        "run_id": run_id,
        "aliases": sorted(client.get_model_version(name, version.version).aliases),
    }
    write_json(paths.registration, registration)
    return registration


def champion(tracker: Tracker, name: str) -> str | None:
    """The version that the alias `champion` points to."""
    try:
        return str(tracker.client.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # a server that does not answer is no reason to promote
        return None


def feature_fingerprints(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias of a registered model -> the fingerprint of the features that its version was trained on."""
    try:
        aliases = tracker.client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise GraftError("MLflow cannot be asked for its models", got=str(error).splitlines()[0]) from error
        return {}
    tags = {alias: tracker.client.get_model_version(name, version).tags for alias, version in aliases.items()}
    return {alias: values[FINGERPRINT] for alias, values in tags.items() if FINGERPRINT in values}


def _log_model(paths: Paths, run_id: str) -> Any:
    code = next(path for path in (paths.package / "code").iterdir() if path.is_dir())
    with mlflow.start_run(run_id=run_id), _importable(code.parent):
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(paths.package / "model.py"),
            artifacts={"package": str(paths.package)},
            code_paths=[str(code)],
            signature=SIGNATURE,
            input_example=_example(paths),
            pip_requirements=(paths.package / "requirements.txt").read_text(encoding="utf-8").split(),
        )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """MLflow runs model.py once to look at it; its code is found here, and no compiled copies are left there."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = before


def _example(paths: Paths) -> pd.DataFrame:
    """The smallest test image, in base64: what a caller over HTTP sends."""
    files = [
        paths.raw / path for path in pd.read_parquet(paths.report / "predictions.parquet", columns=["path"])["path"]
    ]
    smallest = min(files, key=lambda file: (file.stat().st_size, file))
    return pd.DataFrame({"image": [base64.b64encode(smallest.read_bytes()).decode()]})


def _describe(tracker: Tracker, run_id: str, name: str, version: str) -> None:
    facts = read_json(tracker.paths.package / "package.json")
    test = read_json(tracker.paths.metrics("evaluate"))
    run = tracker.client.get_run(run_id)
    tags = {
        "git.commit": run.data.tags.get("git.commit", "none"),
        "dvc.raw": raw_hash(tracker.paths.root) or "not tracked",
        "backbone": facts["backbone"],
        "weights_sha256": facts["weights_sha256"],
        FINGERPRINT: facts["fingerprint"],
        "candidate": facts["candidate"],
        "test_accuracy": f"{test['accuracy']:.4f}",
    }
    for key, value in tags.items():
        tracker.client.set_model_version_tag(name, version, key, value)
    parent = run.data.tags["mlflow.parentRunId"]
    tracker.client.update_model_version(
        name,
        version,
        f"Test accuracy {test['accuracy']:.4f} ({test['accuracy_low']:.4f} to {test['accuracy_high']:.4f}) on "
        f"{test['images']} images. Backbone {facts['backbone']}, candidate {facts['candidate']}.\n\n"
        f"{tracker.link(parent, 'The run of the whole pipeline')}: images `{tags['dvc.raw']}`, "
        f"code `{tags['git.commit'][:12]}`.",
    )


def _log_test_metrics(tracker: Tracker, run_id: str, model_id: str) -> None:
    """The test's figures once more, tied to the logged model and to the images."""
    test = read_json(tracker.paths.metrics("evaluate"))
    digest = raw_hash(tracker.paths.root)
    data = {"dataset_name": "test", "dataset_digest": digest} if digest else {}
    for key in ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "calibration_error"):
        tracker.client.log_metric(run_id, f"test_{key}", test[key], model_id=model_id, **data)
