"""What is needed to repeat an execution: commit, lock and pins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.code import code_of
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES, Paths

from ..tracking.artifacts import fetched_artifacts
from ..versioning import dvc, git, hashes
from .executions import RESULT, Execution, Records

PINS, LABELS = "data/pins.csv", "data/labels.csv"
"""What preprocess reads besides the images."""


@dataclass(frozen=True)
class Recipe:
    """What a version was made of.

    Attributes:
        name: of the version or of the run, in words.
        commit: the full id.
        lock: the stages of the dvc.lock that the run recorded.
        pins: the possible md5s of data/pins.csv: before the run, and after it.
        labels: the possible md5s of data/labels.csv; none of a run from before there was one.
    """

    name: str
    execution: Execution
    commit: str
    lock: dict[str, Any]
    pins: frozenset[str]
    labels: frozenset[str]

    def hashes(self, of: str) -> dict[str, str]:
        """Path -> hash of all `deps` or `outs`."""
        entries = (entry for stage in self.lock.values() for entry in stage.get(of, []))
        return {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}

    def raw(self) -> str:
        """DVC's hash of data/raw.

        Raises:
            GraftError: it was not under DVC.
        """
        raw = self.hashes("deps").get("data/raw") or self.execution.raw
        if not raw.endswith(".dir"):
            raise GraftError(
                f"the images of {self.name} were not under DVC",
                got=raw or "no hash of data/raw",
                todo="`dvc add data/raw` before the next run",
            )
        return raw

    def code(self) -> dict[str, str]:
        """Folder, or file, of Graft's code that ran -> its hash."""
        of_stages = (dvc.locked_code(stage, entry) for stage, entry in self.lock.items())
        return {path: digest for code in of_stages for path, digest in code.items()}

    def changed_code(self, root: Path) -> list[str]:
        """The code that differed from the commit: changes that were never committed. None where the commit holds no
        code of Graft: it was installed."""
        code = self.code()
        committed = hashes.tree_hashes(root, self.commit, code)
        if not any(committed.values()):
            return []
        return [path for path, digest in sorted(code.items()) if committed[path] != digest]

    def installed_code_differs(self) -> list[str]:
        """The code that differed from what is installed here."""
        now = {path: digest for stage in self.lock if stage in STAGES for path, digest in code_of(stage).items()}
        return [path for path, digest in sorted(self.code().items()) if now.get(path) != digest]

    def code_folder(self, root: Path, worktree: Path) -> Path | None:
        """Where the code that ran can be imported from in a worktree at the commit; None if it is what is installed.

        Raises:
            GraftError: the code that ran is neither installed here nor in the commit.
        """
        other = self.installed_code_differs()
        if not other:
            return None
        changed = self.changed_code(root)
        if not changed and (worktree / "src" / "graft").is_dir():
            return worktree / "src"
        ran = self.execution.parent.data.tags.get("package.graft", "")
        raise GraftError(
            f"the code that made {self.name} is not installed here" + (", and was never committed" if changed else ""),
            got=f"differs in {', '.join(changed or other)}",
            allowed=f"the code of Graft {ran}" if ran else "",
            todo=f"install Graft {ran}, if that is its code; else run the pipeline and rebuild the new version",
        )


def recipe_of(records: Records, version: ModelVersion) -> Recipe:
    """What a version was made of.

    Raises:
        GraftError: MLflow does not have its run; or see `read_recipe`.
    """
    name = f"version {version.version} of `{version.name}`"
    execution = records.of_version(version)
    if execution is None:
        raise GraftError(
            f"the run that made {name} is not in this MLflow store", got=version.run_id, todo="name another version"
        )
    return read_recipe(records, execution, name, version.tags.get(RESULT, ""))


def read_recipe(records: Records, execution: Execution, name: str, result: str = "") -> Recipe:
    """What an execution was made of.

    Args:
        result: the commit that holds its dvc.lock, if one is known.

    Raises:
        GraftError: the run recorded no lock, or git does not have the commit.
    """
    recorded = result or execution.parent.data.tags.get("git.commit", "")
    commit = git.full_commit(records.root, recorded) if len(recorded) >= 7 else ""
    if not commit:
        raise GraftError(
            f"the commit of {name} is not in this repository",
            got=recorded or "no commit: it was made outside of git",
            todo="`git fetch --all`, or work in the repository where it was made",
        )
    lock = _lock(records, execution, name)
    return Recipe(
        name, execution, commit, lock, *(frozenset(_hashes(file, execution, lock)) for file in (PINS, LABELS))
    )


def labels_as_found(root: Path, recipe: Recipe) -> bytes | None:
    """data/labels.csv as the run found it, from a commit, or from the beginning of today's: it only grows. None if
    neither has it."""
    versions = [*git.versions_of(root, LABELS), *_beginnings(Paths(root).labels)]
    return next((each for each in versions if md5_of(each) in recipe.labels), None)


def _beginnings(file: Path) -> Iterator[bytes]:
    """The file as it was before each of its rows was appended, the latest first."""
    lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    for count in range(len(lines), 0, -1):
        yield b"".join(lines[:count])


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _lock(records: Records, execution: Execution, name: str) -> dict[str, Any]:
    """The stages of the dvc.lock that the run recorded."""
    with fetched_artifacts(records.tracker, execution.parent.info.run_id, "dvc.lock") as folder:
        if folder is None:
            raise GraftError(
                f"the run that made {name} recorded no dvc.lock",
                got=execution.parent.info.run_id,
                todo="name another version",
            )
        stages = dvc.stages_of(folder / "dvc.lock")
    if not stages:
        raise GraftError(f"the dvc.lock of the run that made {name} has no stage", todo="name another version")
    return stages


def _hashes(file: str, execution: Execution, lock: Mapping[str, Any]) -> Iterator[str]:
    """The md5s of a file that preprocess reads, as the run found it and as it left it."""
    found = [dep for dep in lock.get("preprocess", {}).get("deps", []) if dep["path"] == file]
    yield from (str(dep["md5"]) for dep in found if "md5" in dep)
    run = execution.stages.get("preprocess")
    tags = {} if run is None else run.data.tags
    yield from (tags[f"{kind}{file}"] for kind in ("dvc.dep.", "dvc.found.") if f"{kind}{file}" in tags)
