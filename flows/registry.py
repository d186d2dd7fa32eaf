"""The packaged model in MLflow: logged, registered, and named by aliases."""

from __future__ import annotations

import base64
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from tasks.common.errors import GraftError
from tasks.common.files import read_json, write_json
from tasks.common.paths import Paths
from tasks.common.task import MAIN

from . import integrity, ledger
from .addresses import redacted
from .tracking import Tracker
from .versioning import raw_hash, tree_hash

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

FINGERPRINT = "features.fingerprint"
"""The tag of a version that names the features its head was trained on."""

COLUMNS = {
    "label": ColSpec(DataType.string, "label"),
    "score": ColSpec(DataType.double, "score"),
    "labels": ColSpec(Array(DataType.string), "labels"),
    "probabilities": ColSpec(Map(DataType.double), "probabilities"),
    "value": ColSpec(DataType.double, "value"),
    "abstain": ColSpec(DataType.boolean, "abstain"),
}
"""What a prediction may have."""


FIGURES: dict[str, tuple[str, ...]] = {
    "classification": ("log_loss", "calibration_error"),
    "multilabel": ("f1_macro", "f1_micro", "subset_accuracy", "hamming_loss", "log_loss", "calibration_error"),
    "regression": ("mae", "rmse", "median_absolute_error", "spearman"),
}
"""Task -> the test's figures that are tied to a logged model beside the main one."""


def register_model(tracker: Tracker, run_id: str, name: str) -> dict[str, Any]:
    """Logs models/package under the run, tries it out, registers it, and at last moves the alias `challenger` to it.

    The first version of a name becomes `champion` as well. Writes and returns models/registration.json.
    """
    paths = tracker.paths
    mlflow.set_tracking_uri(tracker.uri)  # the recorder's own: MLflow sets the variable as well
    info = _log_model(paths, run_id)
    digest = _checked_digest(tracker, info.model_uri)
    version = mlflow.register_model(info.model_uri, name, await_registration_for=60)
    _describe(tracker, run_id, name, version.version)
    tracker.client.set_model_version_tag(name, version.version, integrity.TAG, digest)
    _log_test_metrics(tracker, run_id, info.model_id)
    client = tracker.client
    with ledger.locked(tracker, name):
        integrity.remember(paths.root, (name, str(version.version), run_id), digest)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
        if not _version_at(tracker, name, CHAMPION):
            client.set_registered_model_alias(name, CHAMPION, version.version)
            version = client.get_model_version(name, version.version)
            entry = ledger.new_entry(tracker, version, "first", "", "there was no champion", digest=digest)
            ledger.enter(tracker, entry)
    registration = {
        "name": name,
        "version": str(version.version),
        "model_id": info.model_id,
        "model_uri": info.model_uri,
        "run_id": run_id,
        "digest": digest,
        "aliases": sorted(client.get_model_version(name, version.version).aliases),
    }
    write_json(paths.registration, registration)
    return registration


def _checked_digest(tracker: Tracker, model_uri: str) -> str:
    """The digest of the model as MLflow has logged it: the package that was made here, and it can be used.

    Raises:
        GraftError: it is another, does not load, or does not predict.
    """
    paths = tracker.paths
    paths.tmp.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=paths.tmp) as folder:
        model = _copy(model_uri, Path(folder), tracker.uri)
        integrity.remove_by_products(model)
        digest = integrity.digest(model)
        if tree_hash(model / "artifacts" / "package") != tree_hash(paths.package):
            raise GraftError(
                "MLflow has not kept the package as it was logged",
                got=f"another artifacts/package at {model_uri}",
                allowed="the files of models/package",
                todo="check who writes into MLflow's artifact store, then run the stage again",
            )
        _try_out(model, _example(paths))
    return digest


def _try_out(model: Path, example: pd.DataFrame) -> None:
    """Loads the model as others will and has it predict, before any name points to it.

    Raises:
        GraftError: it does not load, or does not predict.
    """
    try:
        answers = mlflow.pyfunc.load_model(str(model)).predict(example)
    except Exception as error:
        raise GraftError(
            "the model cannot be used as MLflow has logged it",
            got=f"{type(error).__name__}: {error}",
            todo="fix what it names and run the stage again; no alias has been moved",
        ) from error
    assert len(answers) == len(example)


def misplaced_challenger(tracker: Tracker) -> str:
    """What is wrong with the alias `challenger`; empty if it points to the version of models/registration.json.

    `dvc checkout` brings an earlier version's file back, and then nothing is registered.
    """
    kept = _registration(tracker)
    if not kept:
        return ""
    version = f"version {kept['version']} of models/registration.json"
    if not _is_known(tracker, kept):
        return f"{version} is not a version of `{kept['name']}` in this MLflow store"
    there = _version_at(tracker, kept["name"], CHALLENGER)
    return "" if there == kept["version"] else f"`{CHALLENGER}` is at version {there or 'none'}, not at {version}"


def restore_challenger(tracker: Tracker) -> bool:
    """Moves the alias `challenger` to the version of models/registration.json, if MLflow has it; whether it moved."""
    kept = _registration(tracker)
    if not kept or not misplaced_challenger(tracker) or not _is_known(tracker, kept):
        return False
    tracker.client.set_registered_model_alias(kept["name"], CHALLENGER, kept["version"])
    return True


def _registration(tracker: Tracker) -> dict[str, str]:
    return dict(read_json(tracker.paths.registration)) if tracker.paths.registration.is_file() else {}


def _is_known(tracker: Tracker, kept: dict[str, str]) -> bool:
    """Whether this store's version is the very one: another store counts its own versions."""
    found = _if_there(lambda: tracker.client.get_model_version(kept["name"], kept["version"]))
    return found is not None and found.run_id == kept["run_id"]


def _version_at(tracker: Tracker, name: str, alias: str) -> str:
    """The version that an alias points to; empty when there is none."""
    found = _if_there(lambda: tracker.client.get_model_version_by_alias(name, alias))
    return "" if found is None else str(found.version)


def _if_there(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # a server that does not answer is no reason to promote
        return None


def find_version(tracker: Tracker, name: str, wanted: str) -> ModelVersion:
    """The version of a registered model that a number or an alias names.

    Raises:
        GraftError: there is none.
    """
    by = tracker.client.get_model_version if wanted.isdecimal() else tracker.client.get_model_version_by_alias
    found = _if_there(lambda: by(name, wanted))
    if found is None:
        model = _if_there(lambda: tracker.client.get_registered_model(name))
        aliases = [f"{alias} (version {number})" for alias, number in sorted(model.aliases.items())] if model else []
        raise GraftError(
            f"the registered model `{name}` has no version `{wanted}`" if model else f"no model `{name}` is registered",
            got=f"`{wanted}` in {redacted(tracker.uri)}",
            allowed=", ".join(aliases) if model else "",
            todo="name one of its aliases or versions" if model else "run `dvc repro`, which registers the first",
        )
    return found


@contextmanager
def fetched_model(tracker: Tracker, version: ModelVersion, *, unverified: bool = False) -> Iterator[Path]:
    """The model of a version as a folder to load from, while the block runs: a copy, which has been checked.

    Args:
        unverified: a model of which no digest is known is taken as MLflow has it, and its digest is kept from now on.

    Raises:
        GraftError: the store does not give it, its files are not those that were registered, or nothing tells.
    """
    tracker.paths.tmp.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=tracker.paths.tmp) as folder:
        model = _download(tracker, version, Path(folder))
        integrity.remove_by_products(model)
        _check(tracker, version, integrity.digest(model), unverified=unverified)
        yield model


def _download(tracker: Tracker, version: ModelVersion, folder: Path) -> Path:
    try:
        address = tracker.client.get_model_version_download_uri(version.name, version.version)
        return _copy(address, folder, tracker.uri)
    except (MlflowException, OSError) as error:
        raise GraftError(
            f"version {version.version} of `{version.name}` cannot be fetched from MLflow",
            got=redacted((str(error) or type(error).__name__).split("\n")[0][:300]),
            todo="restore its files, or name another version",
        ) from error


def _copy(address: str, folder: Path, uri: str) -> Path:
    """Of a model in MLflow; also where the store is a folder, for what is checked must not change before it is used."""
    there = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=uri))
    if there.resolve().is_relative_to(folder.resolve()):
        return there
    return shutil.copytree(there, folder / "model")


def _check(tracker: Tracker, version: ModelVersion, found: str, *, unverified: bool) -> None:
    key = key_of(version)
    known = ledger.digest_of(tracker.paths.root, key)
    name = f"version {version.version} of `{version.name}`"
    if not known and unverified:
        integrity.remember(tracker.paths.root, key, found)
    elif not known:
        raise GraftError(
            f"nothing outside MLflow tells whether {name} is as it was registered",
            got="no digest in ledger.jsonl, models/registration.json or a committed dvc.lock",
            todo="`git pull`, or register it again: `dvc repro --force register`; if you know that nobody has changed "
            f"it: graft promote {version.version} --unverified",
        )
    elif known != found:
        raise GraftError(
            f"the files of {name} are not those that were registered; nothing of them was loaded",
            got=found,
            allowed=known,
            todo="find out who changed them in MLflow's artifact store; name another version, or register it again: "
            "`dvc repro --force register`",
        )


def key_of(version: ModelVersion) -> integrity.Key:
    return version.name, str(version.version), version.run_id or ""


@contextmanager
def fetched_package(tracker: Tracker, version: ModelVersion) -> Iterator[Path]:
    """The package of a version as a folder to read, while the block runs; see `fetched_model`.

    Raises:
        GraftError: the store does not give it, its files are not those that were registered, or nothing tells.
    """
    with fetched_model(tracker, version) as model:
        yield model / "artifacts" / "package"


def aliases_of(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias of a registered model -> version; empty if there is no such model."""
    model = _if_there(lambda: tracker.client.get_registered_model(name))
    return {} if model is None else {alias: str(version) for alias, version in model.aliases.items()}


def feature_fingerprints(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias of a registered model -> the fingerprint of the features that its version was trained on."""
    tags = {
        alias: tracker.client.get_model_version(name, version).tags
        for alias, version in aliases_of(tracker, name).items()
    }
    return {alias: values[FINGERPRINT] for alias, values in tags.items() if FINGERPRINT in values}


def _log_model(paths: Paths, run_id: str) -> Any:
    code = next(path for path in (paths.package / "code").iterdir() if path.is_dir())
    with mlflow.start_run(run_id=run_id), _importable(code.parent):
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(paths.package / "model.py"),
            artifacts={"package": str(paths.package)},
            code_paths=[str(code)],
            signature=_signature(paths),
            input_example=_example(paths),
            pip_requirements=(paths.package / "requirements.txt").read_text(encoding="utf-8").split(),
        )


def _signature(paths: Paths) -> ModelSignature:
    predicted = read_json(paths.package / "package.json")["predicts"]
    outputs = Schema([COLUMNS[name] for name in predicted])
    return ModelSignature(inputs=Schema([ColSpec(AnyType(), "image")]), outputs=outputs)


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
    main, run = MAIN[test["task"]], tracker.client.get_run(run_id)
    value, low, high = (f"{test[key]:.4f}" for key in main.keys)
    tags = {
        "git.commit": run.data.tags.get("git.commit", "none"),
        "dvc.raw": raw_hash(tracker.paths.root) or "not tracked",
        "backbone": facts["backbone"],
        "weights_sha256": facts["weights_sha256"],
        FINGERPRINT: facts["fingerprint"],
        "candidate": facts["candidate"],
        "task": facts["task"],
        f"test_{main.key}": value,
    }
    for key, text in tags.items():
        tracker.client.set_model_version_tag(name, version, key, text)
    parent = run.data.tags["mlflow.parentRunId"]
    tracker.client.update_model_version(
        name,
        version,
        f"Test {main.title} {value} ({low} to {high}) on {test['images']} images. "
        f"Backbone {facts['backbone']}, candidate {facts['candidate']}.\n\n"
        f"{tracker.link(parent, 'The run of the whole pipeline')}: images `{tags['dvc.raw']}`, "
        f"code `{tags['git.commit'][:12]}`.",
    )


def _log_test_metrics(tracker: Tracker, run_id: str, model_id: str) -> None:
    """The test's figures once more, tied to the logged model and to the images."""
    test = read_json(tracker.paths.metrics("evaluate"))
    digest = raw_hash(tracker.paths.root)
    data = {"dataset_name": "test", "dataset_digest": digest} if digest else {}
    for key in (*MAIN[test["task"]].keys, *FIGURES[test["task"]]):
        if test[key] is not None:
            tracker.client.log_metric(run_id, f"test_{key}", test[key], model_id=model_id, **data)
