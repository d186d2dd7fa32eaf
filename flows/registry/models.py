"""The packaged model in MLflow: logged, registered, and named by aliases."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from tasks.addresses import redacted
from tasks.common.core.errors import GraftError
from tasks.common.core.files import read_json
from tasks.common.core.paths import Paths
from tasks.common.data.task import MAIN

from ..tracking.tracker import Tracker
from ..versioning.dvc import raw_hash
from ..versioning.hashes import tree_hash
from . import integrity, ledger
from .registration import Registration, keep_registration, packaged, read_registration, store_key

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

PACKAGE = "dvc.package"
"""The tag of a version with DVC's hash of the package that it was made of."""

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


def register_model(tracker: Tracker, run_id: str, name: str, parent_id: str = "") -> Registration:
    """Makes models/package a version of `name`, and the challenger; the same package never becomes a second version.

    Killed at any point, the next call does the rest. The first version of a name becomes `champion` as well.

    Args:
        run_id: the run to log the model under; empty for one of its own, below `parent_id` if that is given.

    Raises:
        GraftError: the model cannot be used as MLflow has logged it; no alias has been moved.
    """
    package = tree_hash(tracker.paths.package)
    version = _version_of(tracker, name, package)
    if version is None:
        with nullcontext(run_id) if run_id else tracker.recorded("registration", parent_id) as run_id:
            version = _new_version(tracker, run_id, name, package)
    if not version.description:
        _describe(tracker, version)
    digest = _remembered(tracker, version)
    client = tracker.client
    with ledger.locked(tracker, name):
        if _version_at(tracker, name, CHALLENGER) != str(version.version):
            client.set_registered_model_alias(name, CHALLENGER, version.version)
        if not _version_at(tracker, name, CHAMPION):
            client.set_registered_model_alias(name, CHAMPION, version.version)
            version = client.get_model_version(name, version.version)
            entry = ledger.new_entry(tracker, version, "first", "", "there was no champion")
            ledger.enter(tracker, entry)
    registration = _as_kept(tracker, version, digest)
    keep_registration(tracker.paths, registration)
    return registration


def _new_version(tracker: Tracker, run_id: str, name: str, package: str) -> ModelVersion:
    """Logs the package, tries it out, and registers it together with the tags by which it is known again."""
    with in_store(tracker.uri):
        info = _log_model(tracker, run_id)
        digest = _checked_digest(tracker, info.model_uri)
        _log_test_metrics(tracker, run_id, info.model_id)
        integrity.remember(tracker.paths.root, (name, "", run_id), digest)  # before anything can kill this process
        tags = {PACKAGE: package, integrity.TAG: digest, **_tags(tracker, run_id)}
        made = mlflow.register_model(info.model_uri, name, await_registration_for=60, tags=tags)
    return tracker.client.get_model_version(name, made.version)


def _remembered(tracker: Tracker, version: ModelVersion) -> str:
    """The digest of a version, kept under its number from now on; empty for one that another clone registered and
    that neither git nor the ledger knows."""
    root, key = tracker.paths.root, key_of(version)
    digest = ledger.digest_of(root, key) or integrity.at_hand(root).get((key[0], "", key[2]), "")
    if digest:
        integrity.remember(root, key, digest)
    return digest


def ensure_registered(tracker: Tracker, parent_id: str = "") -> bool:
    """Makes the package that is here the challenger, whatever brought it here: a run, `dvc checkout` or `dvc pull`.

    Whether something had to be done. Nothing is done for a package that is not what its stage has left, or whose test
    results are missing.

    Args:
        parent_id: the run of the execution, for a store that does not have the stage's own run.

    Raises:
        GraftError: see `register_model`.
    """
    paths = tracker.paths
    digest = packaged(paths)
    if not digest or (not misplaced_challenger(tracker) and read_registration(paths) is not None):
        return False
    needed = (paths.report / "predictions.parquet", paths.metrics("evaluate"))
    if tree_hash(paths.package) != digest or not all(file.is_file() for file in needed):
        return False
    run_id = str(read_json(paths.run("register"))["run_id"])
    run = _if_there(lambda: tracker.client.get_run(run_id))
    known = run is not None and run.info.lifecycle_stage == "active"
    register_model(tracker, run_id if known else "", _packaged_name(paths), parent_id)
    return True


def _as_kept(tracker: Tracker, version: ModelVersion, digest: str) -> Registration:
    return Registration(
        name=version.name,
        version=str(version.version),
        model_uri=str(version.source),
        run_id=str(version.run_id or ""),
        package=version.tags[PACKAGE],
        digest=digest,
        store=store_key(tracker.paths.root),
    )


def _packaged_name(paths: Paths) -> str:
    return str(read_json(paths.package / "package.json")["name"])


def _version_of(tracker: Tracker, name: str, digest: str) -> ModelVersion | None:
    """The version that was made of a package; of several the newest."""
    found = tracker.client.search_model_versions(f"name = '{name}' and tags.`{PACKAGE}` = '{digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


@contextmanager
def in_store(uri: str) -> Iterator[None]:
    """Has MLflow use this store while the block runs; it knows one for the whole process, and sets the variable too."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


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
    """What is wrong with the alias `challenger`; empty if it points to the version that was made of models/package.

    `dvc checkout` brings an earlier package back, and a clone may have another MLflow store.
    """
    digest = packaged(tracker.paths)
    if not digest:
        return ""
    name = _packaged_name(tracker.paths)
    version = _version_of(tracker, name, digest)
    if version is None:
        return f"models/package is no version of `{name}` in this MLflow store"
    there, wanted = _version_at(tracker, name, CHALLENGER), str(version.version)
    return "" if there == wanted else f"`{CHALLENGER}` is at version {there or 'none'}, not at version {wanted}"


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
            got="no digest in ledger.jsonl, runs/register.json or a committed dvc.lock",
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


def _log_model(tracker: Tracker, run_id: str) -> Any:
    paths = tracker.paths
    code = next(path for path in (paths.package / "code").iterdir() if path.is_dir())
    with _continued(tracker, run_id), _importable(code.parent):
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(paths.package / "model.py"),
            artifacts={"package": str(paths.package)},
            code_paths=[str(code)],
            signature=_signature(paths),
            input_example=_example(paths),
            pip_requirements=(paths.package / "requirements.txt").read_text(encoding="utf-8").split(),
        )


@contextmanager
def _continued(tracker: Tracker, run_id: str) -> Iterator[None]:
    """Has MLflow log under a run, whose status stays as it is: left to itself MLflow would mark it as finished."""
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


def _tags(tracker: Tracker, run_id: str) -> dict[str, str]:
    """What a version says of its making."""
    facts = read_json(tracker.paths.package / "package.json")
    test = read_json(tracker.paths.metrics("evaluate"))
    main, run = MAIN[test["task"]], tracker.client.get_run(run_id)
    return {
        "git.commit": run.data.tags.get("git.commit", "none"),
        "dvc.raw": raw_hash(tracker.paths.root) or "not tracked",
        "backbone": facts["backbone"],
        "weights_sha256": facts["weights_sha256"],
        FINGERPRINT: facts["fingerprint"],
        "candidate": facts["candidate"],
        "task": facts["task"],
        f"test_{main.key}": f"{test[main.key]:.4f}",
    }


def _describe(tracker: Tracker, version: ModelVersion) -> None:
    test, tags = read_json(tracker.paths.metrics("evaluate")), version.tags
    main = MAIN[test["task"]]
    value, low, high = (f"{test[key]:.4f}" for key in main.keys)
    run_id = str(version.run_id)
    parent = tracker.client.get_run(run_id).data.tags.get("mlflow.parentRunId", run_id)
    tracker.client.update_model_version(
        version.name,
        version.version,
        f"Test {main.title} {value} ({low} to {high}) on {test['images']} images. "
        f"Backbone {tags['backbone']}, candidate {tags['candidate']}.\n\n"
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
