"""Notices that somebody changes data/raw while stages work.

DVC hashes the folder again when a stage has ended, and would take a file that no stage has seen for one that the
results contain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths

from ..versioning import dvc
from ..versioning.stale import state_of


@dataclass(frozen=True)
class Difference:
    """Files below data/raw, sorted."""

    added: list[str]
    missing: list[str]
    changed: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.changed)

    def __str__(self) -> str:
        kinds = {"added": self.added, "missing": self.missing, "changed": self.changed}
        return ", ".join(f"{len(names):,} {kind} ({names[0]})" for kind, names in kinds.items() if names)


def note(paths: Paths, since: float) -> str:
    """What the last stage of a run tells of data/raw; empty if the run has used all of it.

    Args:
        since: when the run began, in seconds: files that were written later have changed.
    """
    if _was_hashed_later(paths):
        return (
            "warning: data/raw changed while the stage preprocess ended, so DVC takes its results for those of other "
            "files; run `graft repro --force preprocess`, then `graft repro`"
        )
    found = _since(dvc.raw_files(paths.root), paths, since)
    if not found:
        return ""
    return f"warning: data/raw has changed since this run listed it: {found}; the next `graft repro` takes the changes"


def _was_hashed_later(paths: Paths) -> bool:
    """Whether dvc.lock names another data/raw than the stage preprocess began with."""
    run, locked = paths.run("preprocess"), dvc.locked_raw(dvc.stages_of(paths.root / "dvc.lock"))
    begun = str(read_json(run).get("inputs", {}).get("data/raw", "")) if run.is_file() else ""
    return bool(locked and begun) and locked != begun


def _since(listed: Mapping[str, str], paths: Paths, since: float) -> Difference:
    if not listed:
        return Difference([], [], [])
    now = state_of(paths.raw)
    changed = sorted(name for name in now if name in listed and now[name][1] > since * 1e9)
    added = sorted({*now} - {*listed})
    return Difference(_not_ignored(paths.root, added), sorted({*listed} - {*now}), changed)


def _not_ignored(root: Path, names: Sequence[str]) -> list[str]:
    """Those files below data/raw that no .dvcignore names."""
    if not names:
        return []
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return [name for name in names if not repo.dvcignore.is_ignored_file(str(root / "data" / "raw" / name))]
