"""Graft's own code, by what each stage runs of it.

graft.lock in a project names it, and every stage in dvc.yaml depends on its part of that file: another version of Graft
re-runs the stages whose code it changes, and no other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from .common.core.errors import GraftError
from .common.core.files import md5, whole_file
from .common.core.paths import STAGES

FILE = "graft.lock"

ROOMS: Mapping[str, tuple[str, ...]] = {
    "preprocess": ("core", "data", "images"),
    "features": ("augmentation", "backbones", "core", "data", "engines", "feature_cache", "images", "maps"),
    "head": (
        "backbones", "core", "data", "engines", "feature_cache", "heads", "images", "maps", "scoring",
        "solvers",
    ),
    "audit": ("core", "data", "feature_cache", "heads", "images", "reporting", "scoring", "solvers"),
    "finetune": (
        "augmentation", "backbones", "core", "data", "engines", "feature_cache", "heads", "images", "scoring",
        "solvers",
    ),
    "evaluate": (
        "backbones", "candidates.py", "core", "data", "engines", "feature_cache", "heads", "images", "maps",
        "reporting", "scoring",
    ),
    "register": ("backbones", "candidates.py", "core", "data", "engines", "feature_cache", "heads", "images", "maps"),
}  # fmt: skip
"""Stage -> the rooms of tasks/common that it imports, directly or through others."""

_NOTE = """\
# The code of Graft that computes each stage, written by `graft repro`, `graft run` and the stages: commit it.
# An upgrade that changes the code of a stage changes its part of this file, and the stage runs again.
"""


def code_of(stage: str) -> dict[str, str]:
    """Folder, or file, of the installed code that a stage runs -> its hash, as DVC would give it."""
    names = ["tasks/__init__.py", *(f"tasks/common/{room}" for room in ROOMS[stage]), f"tasks/{stage}"]
    return {name: _hash_of(name) for name in names}


@cache
def _hash_of(name: str) -> str:
    return tree_hash(Path(__file__).resolve().parent.parent / name)


def tree_hash(path: Path) -> str:
    """The hash that DVC gives a file or a folder, without the code that Python has compiled."""
    if path.is_file():
        return md5(path)
    files = (file for file in path.rglob("*") if file.is_file())
    kept = (file for file in files if "__pycache__" not in file.parts and file.suffix != ".pyc")
    return hash_of_listing({file.relative_to(path).as_posix(): md5(file) for file in kept})


def hash_of_listing(listing: Mapping[str, str]) -> str:
    """The hash that DVC gives a folder (`<md5>.dir`) with these files: path below it -> md5."""
    entries = [{"md5": listing[path], "relpath": path} for path in sorted(listing)]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


@dataclass(frozen=True)
class Change:
    """What graft.lock did not say yet.

    Attributes:
        before: the version of Graft that it named; empty if it named none.
        now: the installed version.
        stages: those with other code.
    """

    before: str
    now: str
    stages: tuple[str, ...]

    def __str__(self) -> str:
        of = f"Graft {self.before} -> {self.now}" if self.before not in ("", self.now) else f"Graft {self.now}"
        return f"{FILE}: {of}; other code in {', '.join(self.stages)}" if self.stages else f"{FILE}: {of}"


def locked_code() -> dict[str, Any]:
    """What graft.lock says if the installed code ran: the version under `graft`, and the code of every stage."""
    return {"graft": version("graft"), **{stage: code_of(stage) for stage in STAGES}}


def lock_text(content: Mapping[str, Any]) -> str:
    return _NOTE + yaml.safe_dump(dict(content), sort_keys=False)


def record_code(root: Path) -> Change | None:
    """Makes graft.lock name the installed code; None if it does already.

    Raises:
        GraftError: it names a newer version of Graft, whose results this one would replace.
    """
    file, locked, installed = root / FILE, _read(root / FILE), locked_code()
    if locked == installed:
        return None
    before, now = str(locked.get("graft", "")), version("graft")
    if _is_newer(before, now):
        raise GraftError(
            f"{FILE} is of a newer Graft than the one installed here",
            got=f"Graft {before}",
            allowed=f"at most {now}",
            todo=f"install Graft {before}, see requirements.txt; to go back to {now} for everybody, remove {file}",
        )
    with whole_file(file) as part:
        part.write_text(lock_text(installed), encoding="utf-8")
    return Change(before, now, tuple(stage for stage in STAGES if locked.get(stage) != installed[stage]))


def _read(file: Path) -> dict[str, Any]:
    """Empty if there is none, or if it is damaged: everything in it is derived from the code."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_newer(one: str, other: str) -> bool:
    try:
        return Version(one) > Version(other)
    except InvalidVersion:
        return False
