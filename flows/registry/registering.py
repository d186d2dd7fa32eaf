"""Registering models/package: logged, tried out, made a version, and named the challenger."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.code import tree_hash
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths

from ..tracking.tracker import Tracker
from . import integrity, ledger
from .logged_model import describe, example_of, log_model, log_test_metrics, tags_of
from .models import CHALLENGER, CHAMPION, copy_of, if_there, in_store, key_of, try_out, version_at
from .registration import Registration, keep_registration, packaged, read_registration, store_key

PACKAGE = "dvc.package"
"""The tag of a version with DVC's hash of the package that it was made of."""


FIX = "fix what it names and run the stage again; no alias has been moved"
"""What to do about a model that cannot be used."""


def register_model(tracker: Tracker, run_id: str, name: str, parent_id: str = "") -> Registration:
    """Makes models/package a version of `name` and the challenger; a package never becomes a second version.

    If it is killed, the next call completes the registration. The first version of a name becomes `champion` as well.

    Args:
        run_id: the run to log the model to; empty for a new run, below `parent_id` if that is given.

    Raises:
        GraftError: the model cannot be used as MLflow has logged it; no alias has been moved.
    """
    package = tree_hash(tracker.paths.package)
    with ledger.locked(tracker, name):  # from the search on: or two processes would register the package twice
        version = _version_of(tracker, name, package)
        if version is None:
            with nullcontext(run_id) if run_id else tracker.recorded("registration", parent_id) as run_id:
                version = _new_version(tracker, run_id, name, package)
        if not version.description:
            describe(tracker, version)
        digest = _remembered(tracker, version)
        _set_aliases(tracker, version)
        registration = _as_kept(tracker, version, digest)
        keep_registration(tracker.paths, registration)
    return registration


def _set_aliases(tracker: Tracker, version: ModelVersion) -> None:
    """The version is the challenger; the first of its name also the champion."""
    name, client = version.name, tracker.client
    if version_at(tracker, name, CHALLENGER) != str(version.version):
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    if not version_at(tracker, name, CHAMPION):
        client.set_registered_model_alias(name, CHAMPION, version.version)
        first = client.get_model_version(name, version.version)
        ledger.enter(tracker, ledger.new_entry(tracker, first, "first", "", "there was no champion"))


def _new_version(tracker: Tracker, run_id: str, name: str, package: str) -> ModelVersion:
    """Logs the package, tries it out, and registers it with the tags by which it is recognised."""
    with in_store(tracker.uri):
        info = log_model(tracker, run_id)
        digest = _checked_digest(tracker, info.model_uri)
        log_test_metrics(tracker, run_id, info.model_id)
        integrity.remember(tracker.paths.root, (name, "", run_id), digest)  # before anything can kill this process
        tags = {PACKAGE: package, integrity.TAG: digest, **tags_of(tracker, run_id)}
        made = mlflow.register_model(info.model_uri, name, await_registration_for=60, tags=tags)
    return tracker.client.get_model_version(name, made.version)


def _remembered(tracker: Tracker, version: ModelVersion) -> str:
    """The digest of a version, stored under its number from now on; empty if another clone registered the version and
    neither git nor the ledger has its digest."""
    root, key = tracker.paths.root, key_of(version)
    digest = ledger.digest_of(root, key) or integrity.at_hand(root).get((key[0], "", key[2]), "")
    if digest:
        integrity.remember(root, key, digest)
    return digest


def ensure_registered(tracker: Tracker, parent_id: str = "") -> bool:
    """Makes models/package the challenger, wherever it came from: a run, `dvc checkout` or `dvc pull`.

    Returns whether anything had to be done. A package that differs from what its stage wrote, or that has no test
    results, is left alone.

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
    run = if_there(lambda: tracker.client.get_run(run_id))
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
    """The version of a package; the newest if there are several."""
    found = tracker.client.search_model_versions(f"name = '{name}' and tags.`{PACKAGE}` = '{digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


def _checked_digest(tracker: Tracker, model_uri: str) -> str:
    """The digest of the model as MLflow has logged it, after checking that it is models/package and that it works.

    Raises:
        GraftError: it is another package, does not load, or does not predict.
    """
    paths = tracker.paths
    paths.tmp.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=paths.tmp) as folder:
        model = copy_of(model_uri, Path(folder), tracker.uri)
        integrity.remove_by_products(model)
        digest = integrity.digest(model)
        if tree_hash(model / "artifacts" / "package") != tree_hash(paths.package):
            raise GraftError(
                "MLflow has not kept the package as it was logged",
                got=f"another artifacts/package at {model_uri}",
                allowed="the files of models/package",
                todo="check who writes into MLflow's artifact store, then run the stage again",
            )
        try_out(model, example_of(paths), "the model", FIX)
    return digest


def misplaced_challenger(tracker: Tracker) -> str:
    """What is wrong with the alias `challenger`; empty if it points to the version of models/package.

    `dvc checkout` restores an earlier package, and a clone may have another MLflow store.
    """
    digest = packaged(tracker.paths)
    if not digest:
        return ""
    name = _packaged_name(tracker.paths)
    version = _version_of(tracker, name, digest)
    if version is None:
        return f"models/package is not registered as a version of `{name}` in this MLflow store"
    there, wanted = version_at(tracker, name, CHALLENGER), str(version.version)
    return "" if there == wanted else f"`{CHALLENGER}` is at version {there or 'none'}, not at version {wanted}"
