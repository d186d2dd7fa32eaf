"""Images by their hash, from the DVC remote to a node: checked, and kept there as long as there is room.

A file of the data is an object of the remote. A member of a shard is a range of the object that is its tar. Whatever
fails is tried again; what is not there, or is damaged there, is named with its reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import ABANDONED

from .exchange import Folder, patiently

OBJECTS = "files/md5"
"""The folder of DVC's objects, in a remote."""

THREADS = 16
"""Files that are fetched at once: each waits for the network most of the time."""

PIECE = 2**20
"""Bytes that are read at once."""

RUN = 64
"""Members of a shard that one thread reads one after the other, through one open file."""


class NoRoom(GraftError):
    """The disk of a node is full."""


@dataclass(frozen=True)
class Wanted:
    """An image.

    Attributes:
        md5: of its bytes.
        stored: the md5 of DVC's object that has it: its own, or that of a shard.
        offset: of its bytes in the shard.
        size: of its bytes; -1: the whole object.
    """

    md5: str
    stored: str
    offset: int = 0
    size: int = -1


class NodeCache:
    """Fetched images of a node, by their md5. Several processes may use it at once.

    Args:
        limit: bytes; of those beyond it, the least recently used are removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._added = limit  # by others, before this process
        self._lock = threading.Lock()

    def link(self, md5: str, target: Path) -> bool:
        """Puts the image at `target`, where it stays even if the cache removes its own; False if it is not here."""
        file = self._file(md5)
        try:
            os.utime(file)
            _link(file, target)
        except FileNotFoundError:
            return False
        return True

    def part(self) -> Path:
        """A new name for a file that is being fetched."""
        folder = self.folder / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / secrets.token_hex(8)

    def keep(self, part: Path, md5: str) -> None:
        """Takes a verified file that was fetched to `part`."""
        file = self._file(md5)
        file.parent.mkdir(parents=True, exist_ok=True)
        size = part.stat().st_size
        part.replace(file)
        with self._lock:
            self._added += size

    def trim(self) -> None:
        """Removes the least recently used files beyond the limit, or beyond three quarters of the disk's room, and what
        killed processes have left. Looks only now and then, when enough has been added."""
        with self._lock:
            if self._added < self.limit // 16:
                return
            self._added = 0
        files = sorted(self._files())
        size = sum(each for _, each, _ in files)
        allowed = min(self.limit, (size + shutil.disk_usage(self.folder).free) * 3 // 4)
        for _, each, file in files:
            if size <= allowed:
                break
            file.unlink(missing_ok=True)
            size -= each
        for part in (self.folder / "parts").glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > ABANDONED:
                    part.unlink()

    def _file(self, md5: str) -> Path:
        return self.folder / md5[:2] / md5[2:]

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of the last use, size, file)."""
        for file in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):  # another process has removed it
                found = file.stat()
                yield found.st_mtime, found.st_size, file


class Fetcher:
    """Brings images to a node.

    Args:
        remote: the DVC remote.
    """

    def __init__(self, remote: Folder, cache: NodeCache, threads: int = THREADS) -> None:
        self._objects, self._cache, self._threads = remote.below(OBJECTS), cache, threads

    def bring(self, wanted: Iterable[Wanted], folder: Path) -> dict[str, str]:
        """Puts each image into `folder`, under its md5.

        Returns:
            md5 -> why it is not available, of those that are missing or damaged in the remote.

        Raises:
            NoRoom: the disk is full.
            TransientError: the remote does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        absent = [one for one in dict.fromkeys(wanted) if not self._cache.link(one.md5, folder / one.md5)]
        jobs = [[one] for one in absent if one.size < 0] + list(_runs([one for one in absent if one.size >= 0]))
        missing: dict[str, str] = {}
        with _room(self._cache.folder), ThreadPoolExecutor(min(self._threads, len(jobs)) or 1, "fetch") as pool:
            for found in pool.map(lambda job: self._bring(job, folder), jobs):
                missing.update(found)
            self._cache.trim()
        return missing

    def _bring(self, run: Sequence[Wanted], folder: Path) -> dict[str, str]:
        missing = {}
        for one, fetched in zip(run, self._fetched(run), strict=True):
            if isinstance(fetched, str):
                missing[one.md5] = fetched
                continue
            _link(fetched, folder / one.md5)
            self._cache.keep(fetched, one.md5)
        return missing

    def _fetched(self, run: Sequence[Wanted]) -> Iterator[Path | str]:
        """The verified file of each, or why there is none."""
        if run[0].size < 0:
            yield self._attempts(run[0], lambda part: self._objects.get_file(_name(run[0].stored), part))
            return
        with _Reader(self._objects, _name(run[0].stored)) as shard:
            for one in run:
                yield self._attempts(one, partial(shard.copy, one.offset, one.size))

    def _attempts(self, one: Wanted, fetch: Callable[[Path], None]) -> Path | str:
        """Twice if what came was not what was asked for: the remote's copy may be sound."""
        part = self._cache.part()
        found = ""
        try:
            for _ in range(2):
                fetch(part)
                found = _md5(part)
                if found == one.md5:
                    return part
            part.unlink(missing_ok=True)
            return f"damaged in the DVC remote: its md5 is {found} there"
        except FileNotFoundError:
            part.unlink(missing_ok=True)
            return "missing in the DVC remote: run `dvc push`"
        except BaseException:
            part.unlink(missing_ok=True)
            raise


class _Reader:
    """An object that is read in ranges; opened again after an error."""

    def __init__(self, objects: Folder, name: str) -> None:
        self._objects, self._name = objects, name
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def copy(self, offset: int, size: int, target: Path) -> None:
        """Raises:
        FileNotFoundError: the object does not exist.
        TransientError: the remote does not answer.
        """

        def attempt() -> None:
            try:
                self._copy(offset, size, target)
            except BaseException:
                self._close()
                raise

        patiently(attempt, self._objects.path(self._name))

    def _copy(self, offset: int, size: int, target: Path) -> None:
        if self._file is None:
            self._file = self._objects.fs.open(self._objects.path(self._name), "rb")
        self._file.seek(offset)
        with target.open("wb") as file:
            left = size
            while left > 0 and (piece := self._file.read(min(PIECE, left))):
                file.write(piece)
                left -= len(piece)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def _runs(members: list[Wanted]) -> Iterator[list[Wanted]]:
    """Members of one shard, in the order in which they lie in it, at most `RUN` at once."""
    members.sort(key=lambda one: (one.stored, one.offset))
    for _, group in groupby(members, key=lambda one: one.stored):
        same = list(group)
        yield from (same[start : start + RUN] for start in range(0, len(same), RUN))


def _name(md5: str) -> str:
    return f"{md5[:2]}/{md5[2:]}"


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _link(file: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(file, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(file, target)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raises:
    NoRoom: in place of the error of a full disk.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"the disk of {folder} is full", todo="free space on this node") from error
            cause = cause.__cause__
        raise
