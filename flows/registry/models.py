"""Versions of the registered model: found, fetched, checked and tried out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError

from ..tracking.tracker import Tracker
from . import integrity, ledger

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

FINGERPRINT = "features.fingerprint"
"""The tag of a version that names the features its head was trained on."""

EYES = "features.eyes"
"""The tag that names those of each backbone and size, if there are several; separated by commas."""


def find_version(tracker: Tracker, name: str, wanted: str) -> ModelVersion:
    """The version of a registered model with this number or alias.

    Raises:
        GraftError: there is none.
    """
    by = tracker.client.get_model_version if wanted.isdecimal() else tracker.client.get_model_version_by_alias
    found = if_there(lambda: by(name, wanted))
    if found is None:
        model = if_there(lambda: tracker.client.get_registered_model(name))
        aliases = [f"{alias} (version {number})" for alias, number in sorted(model.aliases.items())] if model else []
        raise GraftError(
            f"the registered model `{name}` has no version `{wanted}`" if model else f"no model `{name}` is registered",
            got=f"`{wanted}` in {redacted(tracker.uri)}",
            allowed=", ".join(aliases) if model else "",
            todo="name one of its aliases or versions" if model else "run `graft repro`, which registers the first",
        )
    return found


def aliases_of(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias of a registered model -> version; empty if there is no such model."""
    model = if_there(lambda: tracker.client.get_registered_model(name))
    return {} if model is None else {alias: str(version) for alias, version in model.aliases.items()}


def feature_fingerprints(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias of a registered model -> the fingerprint of the features that its version was trained on; of several
    backbones or sizes theirs, separated by commas."""
    tags = {
        alias: tracker.client.get_model_version(name, version).tags
        for alias, version in aliases_of(tracker, name).items()
    }
    return {alias: values.get(EYES, values[FINGERPRINT]) for alias, values in tags.items() if FINGERPRINT in values}


def version_at(tracker: Tracker, name: str, alias: str) -> str:
    """The version that an alias points to; empty when there is none."""
    found = if_there(lambda: tracker.client.get_model_version_by_alias(name, alias))
    return "" if found is None else str(found.version)


def if_there(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # a server that does not answer must not look like a missing version
        return None


def key_of(version: ModelVersion) -> integrity.Key:
    return version.name, str(version.version), version.run_id or ""


@contextmanager
def fetched_model(tracker: Tracker, version: ModelVersion, *, unverified: bool = False) -> Iterator[Path]:
    """The model of a version as a folder to load from, while the block runs: a copy, which has been checked.

    Args:
        unverified: accept a model without a known digest, and keep its digest from now on.

    Raises:
        GraftError: it cannot be fetched, its files are not those that were registered, or no digest is known.
    """
    with TemporaryDirectory(dir=_room(tracker.paths.tmp)) as folder:
        model = _download(tracker, version, Path(folder))
        integrity.remove_by_products(model)
        _check(tracker, version, integrity.digest(model), unverified=unverified)
        yield model


def _room(folder: Path) -> Path | None:
    """Where the copy lies: in the project, or in the system's temporary folder if the project is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextmanager
def fetched_package(tracker: Tracker, version: ModelVersion) -> Iterator[Path]:
    """The package of a version as a folder to read, while the block runs; see `fetched_model`.

    Raises:
        GraftError: it cannot be fetched, its files are not those that were registered, or no digest is known.
    """
    with fetched_model(tracker, version) as model:
        yield model / "artifacts" / "package"


def _download(tracker: Tracker, version: ModelVersion, folder: Path) -> Path:
    try:
        address = tracker.client.get_model_version_download_uri(version.name, version.version)
        return copy_of(address, folder, tracker.uri)
    except (MlflowException, OSError) as error:
        raise GraftError(
            f"version {version.version} of `{version.name}` cannot be fetched from MLflow",
            got=redacted((str(error) or type(error).__name__).split("\n")[0][:300]),
            todo="restore its files, or choose another version",
        ) from error


def copy_of(address: str, folder: Path, uri: str) -> Path:
    """Copies a model from MLflow, even if the store is a folder: a checked model must not change before it is used."""
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
            f"the files of {name} cannot be verified",
            got="no digest in ledger.jsonl, runs/register.json or a committed dvc.lock",
            todo="`git pull`, or register it again: `dvc repro --force register`; if you know that nobody has changed "
            f"it: graft promote {version.version} --unverified",
        )
    elif known != found:
        raise GraftError(
            f"the files of {name} are not those that were registered; nothing was loaded",
            got=found,
            allowed=known,
            todo="find out who changed them in MLflow's artifact store; name another version, or register it again: "
            "`dvc repro --force register`",
        )


@contextmanager
def in_store(uri: str) -> Iterator[None]:
    """Makes MLflow use this store while the block runs; MLflow has one for the whole process, and sets the variable."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


def try_out(model: Path, example: Any, name: str, todo: str) -> None:
    """Loads a model as others will and has it predict, before any alias points to it.

    Args:
        model: its folder, which has been checked.
        example: what it predicts; None for the example that was logged with it.
        name: of the model, for the error.
        todo: what to do if it fails.

    Raises:
        GraftError: it does not load, or does not predict.
    """
    try:
        loaded = mlflow.pyfunc.load_model(str(model))
        images = loaded.input_example if example is None else example
        answers = loaded.predict(images)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise GraftError(
            f"{name} cannot be used as MLflow has it", got=f"{type(error).__name__}: {reason[:300]}", todo=todo
        ) from error
    if len(answers) != len(images):
        raise GraftError(f"{name} does not answer", got=f"{len(answers)} answers to {len(images)} images", todo=todo)
