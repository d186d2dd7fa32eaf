"""What has changed since the stages last ran, by stage, and which images changed: `dvc status` in words.

Read from dvc.lock, data/raw.dvc, params.yaml, the code and DVC's listings. Nothing is run, and nothing large is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from graft.tasks.code import FILE, code_of, hash_of_listing, tree_hash
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.sections import read_params
from graft.tasks.common.data.task import Task

from ..versioning.dvc import cached_file, files_now, images_of, listing_of, locked_code, names_of, raw_hash, stages_of
from ..versioning.image_listings import images_now
from .image_diff import UNKNOWN, ImageChanges, between, images_between
from .reasons import Reason, changed_keys, reasons_of, sentence_of


@dataclass(frozen=True)
class Changes:
    """What would run, and because of what.

    Attributes:
        stages: those that have a reason of their own, in order.
        downstream: those that run after these if the outputs of these change.
        reasons: stage -> why.
        images: what changed in data/raw since the first stage ran; None if nothing did.
        sentence: all reasons; empty if there are none.
        note: what to do first; mostly empty.
    """

    stages: tuple[str, ...]
    downstream: tuple[str, ...]
    reasons: dict[str, tuple[Reason, ...]]
    images: ImageChanges | None
    sentence: str
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.stages

    def to_dict(self) -> dict[str, Any]:
        return {"empty": self.empty, **asdict(self)}


def pending(root: Path) -> Changes:
    """What a run would do after DVC has restored its files, in a worktree or a clone, whatever is checked out there.

    The images are those of data/raw.dvc, weights under DVC those of their own .dvc file. A data/raw or an output that
    is missing or from an earlier run is not a change.

    Raises:
        GraftError: dvc.lock, dvc.yaml or params.yaml cannot be read.
    """
    pipeline = Pipeline.of(root)
    return _compared(pipeline, Kept(pipeline))


def pending_here(root: Path) -> Changes:
    """What `dvc repro` would do with the files in this checkout, like `dvc status`.

    Images that DVC has not seen yet count, and so do outputs that are missing or changed.

    A data/raw that is missing as a whole is not a change.

    Raises:
        GraftError: dvc.lock, dvc.yaml or params.yaml cannot be read.
    """
    pipeline = Pipeline.of(root)
    look = Present(pipeline)
    return replace(_compared(pipeline, look), note=look.note())


# What is compared


@dataclass(frozen=True)
class Pipeline:
    """The stages of dvc.yaml, and what dvc.lock says about their last runs.

    Attributes:
        entries: stage -> its entry in dvc.yaml, in order.
        locked: stage -> its entry in dvc.lock, if it has run.
    """

    root: Path
    entries: Mapping[str, Any]
    locked: Mapping[str, Any]
    params: Mapping[str, Any]

    @classmethod
    def of(cls, root: Path) -> Pipeline:
        entries = stages_of(root / "dvc.yaml")
        known = {stage: entries[stage] for stage in STAGES if stage in entries}
        return cls(root, known, stages_of(root / "dvc.lock"), read_params(Paths(root).params))

    def deps(self, stage: str) -> list[str]:
        return names_of(self.entries[stage].get("deps", []))

    def outs(self, stage: str) -> list[str]:
        return names_of(self.entries[stage].get("outs", []))

    def kept_outs(self, stage: str) -> set[str]:
        """The outputs that DVC keeps in its cache."""
        uncached = {
            name
            for out in self.entries[stage].get("outs", [])
            if isinstance(out, dict)
            for name, how in out.items()
            if how.get("cache") is False
        }
        return {*self.outs(stage)} - uncached

    def before(self, stage: str, what: str) -> dict[str, str]:
        """Path -> hash when the stage last ran; `what` is `deps` or `outs`."""
        return {entry["path"]: entry.get("md5", "") for entry in self.locked.get(stage, {}).get(what, [])}

    def code_before(self, stage: str) -> dict[str, str]:
        return locked_code(stage, self.locked.get(stage, {}))

    def code_now(self, stage: str) -> dict[str, str]:
        """Of the installed code, whatever graft.lock says: the next run records it there. Empty if dvc.yaml does not
        name that file."""
        names_it = any(isinstance(entry, dict) and FILE in entry for entry in self.entries[stage].get("params", []))
        return code_of(stage) if names_it else {}

    def params_before(self, stage: str) -> dict[str, Any]:
        return dict(self.locked.get(stage, {}).get("params", {}).get("params.yaml", {}))

    def params_now(self, stage: str) -> dict[str, Any]:
        """The dotted keys that the stage depends on -> values; missing keys are left out."""
        asked = [key for key in self.entries[stage].get("params", []) if isinstance(key, str)]
        return {key: value for key in asked for value in _at(self.params, key.split("."))}

    def task(self) -> Task:
        found = self.params.get("head", {})
        return str(found.get("task", "classification")) if isinstance(found, dict) else "classification"  # type: ignore[return-value]


RAW = "data/raw"

CHANGED = "changed"
"""Stands for a hash that need not be known."""


class Look(Protocol):
    """A way of seeing the project as it is now."""

    def dep(self, path: str, before: str) -> str:
        """The hash of a dependency; empty if it is not there. `before` is what it was when the stage last ran."""

    def outs(self, stage: str) -> list[Reason]:
        """What is wrong with the stage's own outputs."""

    def images(self, before: str, now: str) -> ImageChanges:
        """What differs between two states of data/raw."""


class Kept:
    """By what DVC and git keep, whatever of it is checked out."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._root = pipeline, pipeline.root
        self._outs = {
            out: digest for stage in pipeline.entries for out, digest in pipeline.before(stage, "outs").items()
        }
        self._tree = cache(tree_hash)

    def dep(self, path: str, before: str) -> str:
        if path == RAW:
            return raw_hash(self._root) or before
        if path in self._outs:
            return self._outs[path]
        folder = next((out for out in self._outs if path.startswith(f"{out}/")), "")
        if folder:
            return (listing_of(self._root, self._outs[folder]) or {}).get(path.removeprefix(f"{folder}/"), before)
        place = self._root / path
        if place.is_dir() and any(place.glob("*.dvc")):
            return _brought(self._root, place)
        return self._tree(place) if place.exists() else ""

    def outs(self, stage: str) -> list[Reason]:
        return []

    def images(self, before: str, now: str) -> ImageChanges:
        return images_between(self._root, before, now, self._pipeline.task())


def _brought(root: Path, folder: Path) -> str:
    """The hash of a folder once DVC has restored the files that its .dvc files name."""
    known = files_now(root, [folder.relative_to(root).as_posix()]).popitem()[1]
    listing = {name: digest or md5(folder / name) for name, digest in known.items()}
    for file in folder.glob("*.dvc"):
        name, digest = file.stem, raw_hash(root, file.relative_to(root).as_posix())
        inner = listing_of(root, digest) if digest.endswith(".dir") else {"": digest}
        for below, content in (inner or {}).items():
            listing[f"{name}/{below}".rstrip("/")] = content
    return hash_of_listing(listing)


class Present:
    """The state of the files in this checkout."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._root = pipeline, pipeline.root
        stages = pipeline.entries
        places = [path for stage in stages for path in (*pipeline.deps(stage), *pipeline.outs(stage))]
        self._files = files_now(self._root, places)
        self._listing = cache(partial(listing_of, self._root))
        self._raw, self._hash = cache(self._hash_of_raw), cache(self._hash_of)

    def dep(self, path: str, before: str) -> str:
        return self._raw(before) if path == RAW else self._hash(path)

    def _hash_of_raw(self, before: str) -> str:
        """`before` if nothing changed. Files that DVC does not know are read only if the rest is unchanged."""
        if RAW not in self._files:
            return before
        listing = self._listing(before)
        if listing is None:
            return self._hash(RAW)
        self._read(RAW, listing)
        return before if listing == self._files[RAW] else CHANGED

    def _hash_of(self, path: str) -> str:
        if path not in self._files:
            return ""
        self._read(path, self._files[path])
        return self._files[path].get("") or hash_of_listing(self._files[path])

    def _read(self, path: str, names: Iterable[str]) -> None:
        files = self._files[path]
        for name in names:
            if files.get(name) == "":
                files[name] = md5(self._root / path / name)

    def outs(self, stage: str) -> list[Reason]:
        kept, before = self._pipeline.kept_outs(stage), self._pipeline.before(stage, "outs")
        found = {out: self._wrong(out, before.get(out, ""), kept=out in kept) for out in self._pipeline.outs(stage)}
        return [Reason("output", f"{out} {wrong}", (out,)) for out, wrong in found.items() if wrong]

    def _wrong(self, out: str, before: str, *, kept: bool) -> str:
        now = self._hash(out)
        if not now:
            return "is missing"
        if now != before:
            return "changed"
        return "" if not kept or self._is_cached(before) else "is not in DVC's cache"

    def _is_cached(self, digest: str) -> bool:
        inner = self._listing(digest) if digest.endswith(".dir") else {}
        return inner is not None and all(cached_file(self._root, one) for one in (digest, *inner.values()))

    def images(self, before: str, now: str) -> ImageChanges:
        old = images_of(self._root, before) if before else {}
        if old is None:
            return UNKNOWN
        return between(self._root, old, images_now(self._root / RAW, self._files[RAW]), self._pipeline.task())

    def note(self) -> str:
        """A hint if data/raw has the last run's images, but data/raw.dvc names others: `dvc repro` would undo that."""
        before = self._pipeline.before("preprocess", "deps").get(RAW, "")
        tracked = raw_hash(self._root)
        if not before or tracked in ("", before) or RAW not in self._files or self._raw(before) != before:
            return ""
        words = images_between(self._root, before, tracked, self._pipeline.task()).words()
        return f"data/raw.dvc names other images ({words}): `dvc checkout data/raw.dvc` or `dvc pull` restores them"


# The comparison


def _compared(pipeline: Pipeline, look: Look) -> Changes:
    images = cache(look.images)
    found = {stage: _reasons(pipeline, look, stage, images) for stage in pipeline.entries}
    reasons = {stage: each for stage, each in found.items() if each}
    stages = tuple(reasons)
    return Changes(stages, _after(pipeline, stages), reasons, _new_images(pipeline, look, images), sentence_of(reasons))


def _reasons(
    pipeline: Pipeline, look: Look, stage: str, images: Callable[[str, str], ImageChanges]
) -> tuple[Reason, ...]:
    if stage not in pipeline.locked:
        return (Reason("never_run", f"{stage} never ran"),)
    locked, deps = pipeline.before(stage, "deps"), pipeline.deps(stage)
    before = {path: locked.get(path, "") for path in deps}
    now = {path: look.dep(path, before[path]) for path in deps}
    before["dvc.yaml"], now["dvc.yaml"] = pipeline.locked[stage].get("cmd", ""), pipeline.entries[stage].get("cmd", "")
    before, now = {**before, **pipeline.code_before(stage)}, {**now, **pipeline.code_now(stage)}
    keys = changed_keys(pipeline.params_before(stage), pipeline.params_now(stage))
    return (*reasons_of(before, now, images, keys), *look.outs(stage))


def _new_images(pipeline: Pipeline, look: Look, images: Callable[[str, str], ImageChanges]) -> ImageChanges | None:
    """What changed since the run of the first stage that has not seen data/raw as it is."""
    for stage in pipeline.entries:
        if RAW in pipeline.deps(stage) and stage in pipeline.locked:
            before = pipeline.before(stage, "deps").get(RAW, "")
            now = look.dep(RAW, before)
            if now != before:
                return images(before, now)
    return None


def _after(pipeline: Pipeline, stages: tuple[str, ...]) -> tuple[str, ...]:
    """The stages that depend on outputs of the given ones, directly or through others."""
    made: list[str] = []
    found = []
    for stage in pipeline.entries:
        depends = any(dep == out or dep.startswith(f"{out}/") for dep in pipeline.deps(stage) for out in made)
        if stage in stages or depends:
            made += pipeline.outs(stage)
            found += [] if stage in stages else [stage]
    return tuple(found)


def _at(values: Any, parts: list[str]) -> list[Any]:
    """The value at these keys, if there is one."""
    for part in parts:
        if not isinstance(values, dict) or part not in values:
            return []
        values = values[part]
    return [values]
