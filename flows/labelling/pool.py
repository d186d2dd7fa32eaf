"""data/pool: images without a label, by content, under DVC. No stage depends on it, so it grows without a retraining.

data/pool/AB/MD5.EXT   the images
data/pool/index.csv    what is known of each, see `COLUMNS`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5, whole_file
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress, say
from graft.tasks.common.images.shards import hash_of, opening_member, stored
from graft.tasks.common.images.unreadable import Refused
from graft.tasks.preprocess.check import judge, look
from graft.tasks.preprocess.label_history import now
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.walk import copy_regular

from ..runtime.params import load_params
from ..runtime.turns import turn
from ..serving.image_list import list_source
from ..serving.server.kept import IMAGES, MARK, RANDOM, UNSURE
from ..versioning import dvc
from ..versioning.dvc_config import dvc_remote

INDEX = "index.csv"

TRACKED = "data/pool.dvc"

AT = "pool.at"
"""The file below .graft that says which data/pool.dvc the pool was last checked out or added for."""

COLUMNS = ["image_id", "path", "name", "group", "why", "added", "pixels"]
"""The md5 of the file; where it is in data/pool; the name that it came with; images that belong together; how it came
(`folder`, `inbox`, or `unsure` and `random` for what a model server kept); when; the hash of its pixels."""

AHEAD = 64
"""Files that are examined at a time."""

PATIENCE = 600.0
"""Seconds to wait for another process that changes the pool."""


@dataclass
class Added:
    """What became of the files.

    Attributes:
        new: number of images that the pool did not have.
        known: number of images that data/raw or the pool has already, by their bytes or their pixels.
        refused: file -> why it is no usable image.
    """

    new: int = 0
    known: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """A file that may come into the pool.

    Attributes:
        name: as the user knows it.
        group: images that belong together; empty for none.
        why: how it came.
    """

    name: str
    file: Path
    group: str
    why: str


def read_pool(root: Path) -> pd.DataFrame:
    """The index, with `COLUMNS`; no rows without a pool. Brings the images back if this checkout lacks them."""
    paths = Paths(root)
    _bring_back(paths)
    file = paths.pool / INDEX
    if not file.is_file():
        return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    return pd.read_csv(file, dtype=str, keep_default_na=False)[COLUMNS]


def add_to_pool(root: Path, source: Path, why: str = "folder") -> Added:
    """Copies images that are new into the pool, each checked as `preprocess` would check it, and puts it under DVC.

    Args:
        source: a folder, a table with a column `path` (and `group`), or the folder of `graft serve --log`.
        why: how the images came.

    Raises:
        DataError: the source cannot be read, or has no files.
        GraftError: the images cannot be copied or put under DVC; those that were copied are kept.
    """
    files = list(_files(source, why))
    if not files:
        raise DataError(f"{source} has no images", allowed="a folder, a table of paths", todo="name another source")
    return add_files(root, files)


def add_files(root: Path, files: list[File]) -> Added:
    """The same for files that are known by name.

    Raises:
        GraftError: as above.
    """
    paths, params = Paths(root), load_params(Paths(root).params).preprocess
    with alone(paths):
        index = read_pool(root)
        known = {*index["image_id"], *dvc.raw_hashes(root).values()}
        pixels = {*index["pixels"], *_pixels_of_the_data(paths)}
        return _bring(files, index, known, pixels, params, paths)


def alone(paths: Paths) -> AbstractContextManager[None]:
    """One process at a time changes the pool."""
    return turn(paths.state / "pool.lock", "another change of the pool", PATIENCE, say)


def remove_from_pool(root: Path, image_ids: Sequence[str]) -> None:
    """Takes images out; the caller has the turn."""
    paths, index = Paths(root), read_pool(root)
    out = index["image_id"].isin(set(image_ids))
    _write(index[~out], paths)
    for path in index.loc[out, "path"]:
        (paths.pool / path).unlink(missing_ok=True)
    put_under_dvc(paths)


def put_under_dvc(paths: Paths) -> None:
    """`dvc add data/pool`."""
    dvc.dvc_add(paths.root, "data/pool")
    _remember(paths)


def _bring_back(paths: Paths) -> None:
    """Checks the pool out if it is not here, or if data/pool.dvc has come from another commit since."""
    kept = dvc.raw_hash(paths.root, TRACKED)
    if not kept or (paths.pool.is_dir() and _remembered(paths) == kept):
        return
    fetch_pool(paths.root)


def fetch_pool(root: Path, *more: str) -> None:
    """Checks the pool out, from the remote if there is one."""
    verb = "pull" if dvc_remote(root) else "checkout"
    dvc.dvc(root, [verb, "--quiet", *more, TRACKED], "restoring the images without a label")
    _remember(Paths(root))


def _remember(paths: Paths) -> None:
    with whole_file(paths.state / AT) as part:
        part.write_text(dvc.raw_hash(paths.root, TRACKED), encoding="utf-8")


def _remembered(paths: Paths) -> str:
    file = paths.state / AT
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _files(source: Path, why: str) -> Iterator[File]:
    if (source / MARK).is_file():
        for reason in (UNSURE, RANDOM):
            for file in sorted((source / IMAGES / reason).glob("*/*")):
                yield File(file.name, file, "", reason)
        return
    for row in list_source(source).itertuples():
        yield File(str(row.name), Path(str(row.file)), "" if pd.isna(row.group) else str(row.group), why)


def _pixels_of_the_data(paths: Paths) -> set[str]:
    file = paths.manifest / "manifest.parquet"
    return set(pd.read_parquet(file, columns=["pixels"])["pixels"]) if file.is_file() else set()


def _bring(
    files: list[File], index: pd.DataFrame, known: set[str], pixels: set[str], params: PreprocessParams, paths: Paths
) -> Added:
    added, rows = Added(), list[list[str]]()
    try:
        with progress("label: looking at", len(files), "files") as bar:
            for one, image_id, hashed, fault in _examined(files, known, params):
                bar.add()
                if fault:
                    added.refused[one.name] = fault
                elif image_id in known or hashed in pixels:
                    added.known += 1
                else:
                    place = _copied(one, image_id, paths)
                    if not place:
                        added.refused[one.name] = "it changed while it was being read"
                        continue
                    rows.append([image_id, place, one.name, one.group, one.why, now(), hashed])
                    known.add(image_id)
                    pixels.add(hashed)
    finally:
        if rows:
            _write(pd.concat([index, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True), paths)
            put_under_dvc(paths)
    added.new = len(rows)
    return added


def _examined(files: list[File], known: set[str], params: PreprocessParams) -> Iterator[tuple[File, str, str, str]]:
    """(file, md5, hash of the pixels, why it is no usable image) of each, in order."""

    def examine(one: File) -> tuple[File, str, str, str]:
        image_id = ""
        try:
            image_id = hash_of(one.file)
            if image_id in known:
                return one, image_id, "", ""
            seen = look(one.file, params.channels, params.limits, image_id)
            fault = judge(seen, params.min_side, params.placeholder_share, params.limits)
            return one, image_id, seen.pixels, fault
        except (Refused, DataError) as error:
            return one, image_id, "", str(error).splitlines()[0]
        except OSError as error:
            return one, image_id, "", f"cannot be read: {error.strerror or error}"

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), AHEAD):
            yield from pool.map(examine, files[start : start + AHEAD])


class _Changed(Exception):
    """A file changed while it was being read."""


def _copy(file: Path, place: Path) -> None:
    member = None if file.is_file() else stored(file)
    if member is None:
        copy_regular(file, file.parent, place)
        return
    with opening_member(member) as source, place.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _copied(one: File, image_id: str, paths: Paths) -> str:
    """Where the image is in data/pool, once it is there; empty if it is another image by now.

    Raises:
        GraftError: it cannot be written.
    """
    place = Path(image_id[:2]) / f"{image_id}{one.file.suffix.lower()}"
    target = paths.pool / place
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            _copy(one.file, part)
            if md5(part) != image_id:
                raise _Changed
    except _Changed:
        return ""
    except OSError as error:
        raise GraftError(
            f"{one.file} cannot be copied into the pool",
            got=error.strerror or error,
            todo="free some space or set the missing permissions, then add the images again",
        ) from error
    return place.as_posix()


def _write(index: pd.DataFrame, paths: Paths) -> None:
    paths.pool.mkdir(parents=True, exist_ok=True)
    with whole_file(paths.pool / INDEX) as part:
        index[COLUMNS].to_csv(part, index=False)
