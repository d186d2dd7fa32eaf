"""Whether a registered model is still the one that was registered.

Anyone who reaches MLflow can replace the files of a model, and loading a model runs them. A digest of the files is
therefore kept where MLflow's users cannot write: in runs/register.json, whose hash git holds in dvc.lock, in
ledger.jsonl, and beside git's own files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import md5, read_json, sha256, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.yaml_files import parse_yaml

from ..versioning import dvc, git
from ..versioning.dvc_config import dvc_remote

TAG = "graft.digest"
"""The tag of a version with its digest, for people only: anyone who can change the model can change the tag."""

RUN = "runs/register.json"

Key = tuple[str, str, str]
"""A version: the model's name, the number, and the run that logged it. Another store counts its own versions."""


def digest(folder: Path) -> str:
    """The SHA-256 of a logged model: of the sorted list of its files' paths and SHA-256s."""
    return f"sha256:{hashlib.sha256(listed(listing(folder)).encode()).hexdigest()}"


def listing(folder: Path) -> dict[str, str]:
    """File of a logged model -> its SHA-256. A link counts as itself."""
    return {
        file.relative_to(folder).as_posix(): f"link to {file.readlink()}" if file.is_symlink() else sha256(file)
        for file in folder.rglob("*")
        if file.is_symlink() or not file.is_dir()
    }


def listed(files: Mapping[str, str]) -> str:
    """The text whose SHA-256 is the digest."""
    return json.dumps(sorted(files.items()))


def remove_by_products(folder: Path) -> None:
    """Removes what MLflow and Python write into a model when they load it: it is not part of the model, and compiled
    code would run instead of the source that was checked."""
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)  # what stays is seen by the digest
    for file in [*folder.rglob("*.pyc"), folder / "registered_model_meta"]:
        file.unlink(missing_ok=True)


def remember(root: Path, key: Key, value: str) -> None:
    """Stores a digest for all worktrees of the repository."""
    file = _record(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file.resolve()}.lock"):  # each writes what it has read
        others = (each for each in _read(file) if _key(each) != key)
        write_json(file, [*others, _entry(key, value)])


def at_hand(root: Path) -> dict[Key, str]:
    """The digests in the repository's own record, and the one in runs/register.json."""
    run = Paths(root).run("register")
    kept = [*_read(_record(root)), *([_registered(run)] if run.is_file() else [])]
    return {_key(each): each["digest"] for each in kept if each.get("digest")}


def in_history(root: Path, key: Key) -> str:
    """The digest in a runs/register.json that a committed dvc.lock names; empty if there is none."""
    return next((each["digest"] for each in _committed(root) if _key(each) == key and each.get("digest")), "")


def _committed(root: Path) -> Iterator[dict[str, Any]]:
    """The registrations of all commits: first those in DVC's cache, then those from its remote."""
    missing = []
    for wanted in dict.fromkeys(_hashes(root)):
        file = dvc.cached_file(root, wanted)
        if file is None:
            missing.append(wanted)
        elif md5(file) == wanted:
            yield _registered(file)
    for wanted in missing if dvc_remote(root) else []:
        try:
            dvc.fetch_object(root, wanted, "the record of a registered model")
        except GraftError:
            continue  # another commit's may be the one
        file = dvc.cached_file(root, wanted)
        if file is not None and md5(file) == wanted:
            yield _registered(file)


def _hashes(root: Path) -> Iterator[str]:
    if not git.git_state(root).commit:
        return
    for content in git.versions_of(root, "dvc.lock"):
        try:
            lock = parse_yaml(content, root / "dvc.lock")
        except GraftError:
            continue  # committed with merge markers; another commit's may be whole
        stages = lock.get("stages") or {} if isinstance(lock, dict) else {}
        for out in stages.get("register", {}).get("outs", []):
            if out["path"] == RUN and "md5" in out:
                yield out["md5"]


def _registered(run: Path) -> dict[str, Any]:
    return dict(read_json(run).get("registered") or {})


def _record(root: Path) -> Path:
    return dvc.shared_state(root) / "registered.json"


def _read(file: Path) -> list[dict[str, str]]:
    return list(read_json(file)) if file.is_file() else []


def _key(kept: dict[str, Any]) -> Key:
    return str(kept.get("name", "")), str(kept.get("version", "")), str(kept.get("run_id", ""))


def _entry(key: Key, value: str) -> dict[str, str]:
    return {**dict(zip(("name", "version", "run_id"), key, strict=True)), "digest": value}
