"""New images from a folder into which people and machines drop files: taken over when they are whole, moved nowhere,
never deleted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from tasks.common.errors import DataError
from tasks.common.files import md5, read_json, write_shared_json
from tasks.common.paths import Paths
from tasks.preprocess.check import look
from tasks.preprocess.scan import TABLE, hidden, list_files

from .importing import import_images
from .versioning import dvc, raw_listing

UNDER_WAY = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp")
"""Endings of files that a copy or a download has not finished."""


@dataclass(frozen=True)
class Taken:
    """What became of the inbox.

    Attributes:
        new: files that were taken over.
        known: files whose bytes the project has already.
        waiting: file -> why it is left for a later run.
    """

    new: int
    known: int
    waiting: dict[str, str]

    def words(self) -> str:
        said = f"inbox: {self.new:,} new files taken over, {self.known:,} known already, {len(self.waiting):,} not yet"
        first = next(iter(self.waiting.items()), None)
        return f"{said} (first {first[0]}: {first[1]})" if first else said


def take_over(inbox: Path, root: Path, settle_seconds: float) -> Taken:
    """Copies what is new and whole into data/raw and puts it under DVC.

    Raises:
        DataError: the inbox is no folder, or not laid out as `graft import` wants it.
    """
    if not inbox.is_dir():
        raise DataError(
            "params.yaml: retrain.inbox is no folder",
            got=inbox,
            allowed="a folder, laid out as for `graft import`",
            todo="make it, or mount what it is on",
        )
    files = [name for name in list_files(inbox) if not hidden(name) and name not in (TABLE,)]
    waiting = dict(_unsettled(inbox, [*files, *_table(inbox)], settle_seconds))
    if TABLE in waiting:
        return Taken(0, 0, waiting)
    if _table(inbox):
        rows = set(_rows(inbox)["path"])
        waiting |= {name: f"{TABLE} has no row for it" for name in files if name not in rows and name not in waiting}
    whole = [name for name in files if name not in waiting]
    digests = _digests(inbox, whole, Paths(root).cache / "inbox.json")
    has = set(raw_listing(root).values())
    new = {name: digests[name] for name in whole if digests[name] not in has}
    waiting |= _broken(inbox, new)
    new = {name: digest for name, digest in new.items() if name not in waiting}
    if new:
        _bring(inbox, root, new)
    return Taken(len(new), len(whole) - len(new) - len(waiting.keys() & set(whole)), waiting)


def _table(inbox: Path) -> list[str]:
    return [TABLE] if (inbox / TABLE).is_file() else []


def _unsettled(inbox: Path, names: list[str], settle_seconds: float) -> Iterator[tuple[str, str]]:
    now = time.time()
    for name in names:
        try:
            age = now - (inbox / name).stat().st_mtime
        except FileNotFoundError:
            yield name, "it went away meanwhile"
            continue
        if name.lower().endswith(UNDER_WAY) or name.endswith("~"):
            yield name, "by its name, somebody is writing it"
        elif age < settle_seconds:
            yield name, f"changed {max(age, 0):.0f} s ago, less than `retrain.settle_seconds`"


def _digests(inbox: Path, names: list[str], memory: Path) -> dict[str, str]:
    """md5 of each file; what has the size and time of the last look is not read again."""
    try:
        kept = read_json(memory)
    except (OSError, ValueError):  # none yet, or cut short
        kept = {}
    stamps = {name: f"{stat.st_size}:{stat.st_mtime_ns}" for name in names if (stat := (inbox / name).stat())}
    fresh = [name for name in names if kept.get(str(inbox / name), ["", ""])[0] != stamps[name]]
    with ThreadPoolExecutor() as pool:
        hashed = dict(zip(fresh, pool.map(lambda name: md5(inbox / name), fresh), strict=True))
    found = {name: hashed[name] if name in hashed else kept[str(inbox / name)][1] for name in names}
    if fresh:
        write_shared_json(memory, {**kept, **{str(inbox / name): [stamps[name], found[name]] for name in names}})
    return found


def _broken(inbox: Path, new: dict[str, str]) -> dict[str, str]:
    """Files that end in the middle of an image: their copy has not ended, or never will."""
    with ThreadPoolExecutor() as pool:
        faults = pool.map(lambda name: look(inbox / name).fault, new)
        return {name: f"not whole: {fault}" for name, fault in zip(new, faults, strict=True) if _cut_short(fault)}


def _cut_short(fault: str) -> bool:
    """What has other faults is taken over: the stage preprocess names and rejects it."""
    return fault == "empty file" or fault.startswith("damaged")


def _bring(inbox: Path, root: Path, new: dict[str, str]) -> None:
    """Through a folder of its own, so that `graft import` sees only what is new, under names that are free."""
    paths = Paths(root)
    if (root / "data" / "raw.dvc").is_file():
        dvc(root, ["pull", "--quiet", "data/raw.dvc"] if _has_remote(root) else ["checkout", "--quiet", "data/raw.dvc"],
            "bringing the images back to which new ones are added")  # fmt: skip
    staged = paths.tmp / "inbox"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        place_of = _free_place(paths.raw, "images/" if _table(inbox) else "")
        for name, digest in new.items():
            place = staged / place_of(name, digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inbox / name, place)
        if _table(inbox):
            _stage_table(inbox, staged, new, place_of)
        import_images(staged, root, "add" if paths.raw.is_dir() and any(paths.raw.iterdir()) else "new", link=False)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _has_remote(root: Path) -> bool:
    from .versioning import dvc_remote

    return bool(dvc_remote(root))


def _free_place(raw: Path, prefix: str) -> Callable[[str, str], str]:
    """The name itself; with some digits of its hash where data/raw has another file of this name."""

    def place(name: str, digest: str) -> str:
        path = PurePosixPath(name)
        taken = raw / prefix / name
        return path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}").as_posix() if taken.exists() else name

    return place


def _stage_table(inbox: Path, staged: Path, new: dict[str, str], place_of: Callable[[str, str], str]) -> None:
    """The rows of the new files, under their new names."""
    table = _rows(inbox)
    table = table[table["path"].isin(set(new))]
    table.assign(path=[place_of(name, new[name]) for name in table["path"]]).to_csv(staged / TABLE, index=False)


def _rows(inbox: Path) -> pd.DataFrame:
    """The inbox's table as it is, its paths in their shortest form.

    Raises:
        DataError: it cannot be read, or has no column `path`.
    """
    try:
        table = pd.read_csv(inbox / TABLE, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{inbox / TABLE} cannot be read as a table", got=str(error), allowed="CSV") from error
    if "path" not in table:
        got = ", ".join(map(str, table.columns))
        raise DataError(f"{inbox / TABLE} lacks the column path", got=got, todo="rename or add the column")
    return table.assign(path=table["path"].map(os.path.normpath))
