"""The packaged model as MLflow logs it: files, signature, example, and what its version says of its making."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.task import main_in
from graft.tasks.common.images.shards import opening, size_of

from ..tracking.tracker import Tracker
from ..versioning.dvc import raw_hash
from .models import EYES, FINGERPRINT

COLUMNS = {
    "label": ColSpec(DataType.string, "label"),
    "score": ColSpec(DataType.double, "score"),
    "p_value": ColSpec(DataType.double, "p_value"),
    "anomalous": ColSpec(DataType.boolean, "anomalous"),
    "labels": ColSpec(Array(DataType.string), "labels"),
    "probabilities": ColSpec(Map(DataType.double), "probabilities"),
    "value": ColSpec(DataType.double, "value"),
    "low": ColSpec(DataType.double, "low"),
    "high": ColSpec(DataType.double, "high"),
    "set": ColSpec(Array(DataType.string), "set"),
    "abstain": ColSpec(DataType.boolean, "abstain"),
    "typicality": ColSpec(DataType.double, "typicality"),
}
"""The columns that a prediction may have."""

TEST_METRICS: dict[str, tuple[str, ...]] = {
    "classification": (
        "balanced_accuracy",
        "f1_macro",
        "auroc",
        "mean_average_precision",
        "kappa",
        "log_loss",
        "calibration_error",
        "classwise_calibration_error",
    ),
    "multilabel": (
        "auroc",
        "f1_macro",
        "f1_micro",
        "subset_accuracy",
        "hamming_loss",
        "log_loss",
        "calibration_error",
        "classwise_calibration_error",
    ),
    "reconstruction": ("ssim", "iou"),
    "regression": ("mae", "rmse", "median_absolute_error", "spearman"),
    "anomaly": ("average_precision", "false_alarm_rate", "detection_rate", "pixel_auroc", "au_pro"),
}
"""Task -> the test metrics that are linked to a logged model besides the main one."""


def log_model(tracker: Tracker, run_id: str) -> Any:
    paths = tracker.paths
    code = next(path for path in (paths.package / "code").iterdir() if path.is_dir())
    with _continued(tracker, run_id), _importable(code.parent):
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(paths.package / "model.py"),
            artifacts={"package": str(paths.package)},
            code_paths=[str(code)],
            signature=_signature(paths),
            input_example=example_of(paths),
            pip_requirements=(paths.package / "requirements.txt").read_text(encoding="utf-8").split(),
        )


@contextmanager
def _continued(tracker: Tracker, run_id: str) -> Iterator[None]:
    """Makes MLflow log to a run, whose status stays as it is: by itself MLflow would mark it as finished."""
    before = tracker.client.get_run(run_id).info
    mlflow.start_run(run_id=run_id)
    try:
        yield
    finally:
        mlflow.end_run(before.status)
        if before.end_time:
            tracker.client.set_terminated(run_id, before.status, before.end_time)


def _signature(paths: Paths) -> ModelSignature:
    predicted = read_json(paths.package / "package.json")["predicts"]
    outputs = Schema([COLUMNS[name] for name in predicted])
    return ModelSignature(inputs=Schema([ColSpec(AnyType(), "image")]), outputs=outputs)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """MLflow runs model.py once to inspect it: makes its code importable and leaves no compiled copies."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = before


def example_of(paths: Paths) -> pd.DataFrame:
    """The smallest test image, in base64: what a caller over HTTP sends."""
    files = [
        paths.raw / path for path in pd.read_parquet(paths.report / "predictions.parquet", columns=["path"])["path"]
    ]
    smallest = min(files, key=lambda file: (size_of(file), file))
    with opening(smallest) as (opened, _):
        return pd.DataFrame({"image": [base64.b64encode(opened.read()).decode()]})


def tags_of(tracker: Tracker, run_id: str) -> dict[str, str]:
    """The tags of a version: how it was made."""
    facts = read_json(tracker.paths.package / "package.json")
    test = read_json(tracker.paths.metrics("evaluate"))
    main, run = main_in(test), tracker.client.get_run(run_id)
    return {
        "git.commit": run.data.tags.get("git.commit", "none"),
        "dvc.raw": raw_hash(tracker.paths.root) or "not tracked",
        "backbone": facts["backbone"],
        "weights_sha256": facts["weights_sha256"],
        FINGERPRINT: facts["fingerprint"],
        **({EYES: ",".join(eye["fingerprint"] for eye in facts["eyes"])} if "eyes" in facts else {}),
        "candidate": facts["candidate"],
        "task": facts["task"],
        **({} if test[main.key] is None else {f"test_{main.key}": f"{test[main.key]:.4f}"}),
    }


def describe(tracker: Tracker, version: ModelVersion) -> None:
    test, tags = read_json(tracker.paths.metrics("evaluate")), version.tags
    main = main_in(test)
    run_id = str(version.run_id)
    parent = tracker.client.get_run(run_id).data.tags.get("mlflow.parentRunId", run_id)
    tracker.client.update_model_version(
        version.name,
        version.version,
        f"Test {main.stated(test)} on {test['images']} images. "
        f"Backbone {tags['backbone']}, candidate {tags['candidate']}.\n\n"
        f"{tracker.link(parent, 'The run of the whole pipeline')}: images `{tags['dvc.raw']}`, "
        f"code `{tags['git.commit'][:12]}`.",
    )


def log_test_metrics(tracker: Tracker, run_id: str, model_id: str) -> None:
    """Logs the test metrics again, linked to the logged model and to the images."""
    test = read_json(tracker.paths.metrics("evaluate"))
    digest = raw_hash(tracker.paths.root)
    data = {"dataset_name": "test", "dataset_digest": digest} if digest else {}
    for key in (*main_in(test).keys, *TEST_METRICS[test["task"]]):
        if test.get(key) is not None:  # an earlier version had fewer metrics
            tracker.client.log_metric(run_id, f"test_{key}", test[key], model_id=model_id, **data)
