"""Which version models/package is in the current MLflow store: kept on this machine, read without MLflow.

It is not an output of the stage `register`: DVC would restore it from its cache even where MLflow has another store.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.core.paths import Paths

from ..tracking.store import tracking_uri

FILE = "registration.json"
"""In `.graft`."""


@dataclass(frozen=True)
class Registration:
    """A version of a registered model.

    Attributes:
        model_uri: by which MLflow loads it.
        package: DVC's hash of the package.
        store: the MLflow store, as a hash of its address.
        run_id: the run that it was logged to.
        digest: of the logged model's files, see integrity.py; empty if it is not known.
    """

    name: str
    version: str
    model_uri: str
    run_id: str
    package: str
    store: str
    digest: str = ""


def packaged(paths: Paths) -> str:
    """DVC's hash of models/package as the last run of `register` wrote it; empty if there is no such run."""
    if not paths.run("register").is_file() or not (paths.package / "package.json").is_file():
        return ""
    return str(read_json(paths.run("register")).get("outputs", {}).get(paths.relative(paths.package), ""))


def store_key(root: Path) -> str:
    """Names the store in use, without the password that its address may hold."""
    return hashlib.sha256(tracking_uri(root).encode()).hexdigest()[:16]


def read_registration(paths: Paths) -> Registration | None:
    """The version of models/package in this store; None if only MLflow knows it."""
    file = paths.state / FILE
    if not file.is_file():
        return None
    kept = Registration(**read_json(file))
    known = kept.package == packaged(paths) and kept.store == store_key(paths.root)
    return kept if known else None


def keep_registration(paths: Paths, registration: Registration) -> None:
    write_json(paths.state / FILE, asdict(registration))
