"""Images by their hash, from the DVC remote to a node: checked, and kept there as long as there is room.

A file of the data is an object of the remote. A member of a shard is a range of the object that is its tar. Whatever
fails is tried again; what is not there, or is damaged there, is named with its reason.
"""

from __future__ import annotations

import asyncio
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
from pathlib import Path
from typing import Any, BinaryIO

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import ABANDONED, md5

from .exchange import Folder

OBJECTS = "files/md5"
"""The folder of DVC's objects, in a remote."""

THREADS = 8
"""Threads that fetch: they wait for the network most of the time."""

BATCH, BATCH_BYTES = 32, 4 * 2**20
"""Images that are asked for at once, and their size together: each call of a file system costs a millisecond."""

GAP = 2**16
"""Bytes between two members of a shard that are read and left out, rather than asked for in two calls."""

PIECE = 2**20
"""Bytes of a larger image that are read at once."""


class NoRoom(GraftError):
    """The disk of a node is full."""


@dataclass(frozen=True)
class Wanted:
    """An image.

    Attributes:
        md5: of its bytes.
        size: of its bytes.
        stored: the md5 of DVC's object that has it: its own, or that of a shard.
        offset: of its bytes in the shard.
    """

    md5: str
    size: int
    stored: str
    offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def is_member(self) -> bool:
        return self.stored != self.md5


class NodeCache:
    """Fetched images of a node, by their md5. Several processes may use it at once.

    Args:
        limit: bytes; of those beyond it, the least recently used are removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._added = limit  # by others, before this process
        self._lock = threading.Lock()
        self._made: set[Path] = set()

    def link(self, digest: str, target: Path) -> bool:
        """Puts the image at `target`, where it stays even if the cache removes its own; False if it is not here, or is
        damaged."""
        file = self.folder / digest[:2] / digest[2:]
        try:
            os.utime(file)
            _link(file, target)
        except FileNotFoundError:
            return False
        if md5(target) == digest:
            return True
        for damaged in (file, target):
            damaged.unlink(missing_ok=True)
        return False

    def part(self) -> Path:
        """A new name for a file that is being fetched."""
        return self._folder("parts") / secrets.token_hex(8)

    def keep(self, part: Path, digest: str) -> None:
        """Takes a verified file that was fetched to `part`."""
        size = part.stat().st_size
        part.replace(self._folder(digest[:2]) / digest[2:])
        with self._lock:
            self._added += size

    def _folder(self, name: str) -> Path:
        """Made once by each process: asking again takes as long as reading an image."""
        folder = self.folder / name
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        return folder

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
        """Puts each image into `folder`, under its md5, which has been compared.

        Returns:
            md5 -> why it is not available, of those that are missing or damaged in the remote.

        Raises:
            NoRoom: the disk is full.
            TransientError: the remote does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        absent = [one for one in dict.fromkeys(wanted) if not self._cache.link(one.md5, folder / one.md5)]
        missing: dict[str, str] = {}
        with _room(self._cache.folder), ThreadPoolExecutor(self._threads, "fetch") as pool:
            for found in pool.map(lambda batch: self._bring(batch, folder), list(_batches(absent))):
                missing.update(found)
            self._cache.trim()
        return missing

    def _bring(self, batch: Sequence[Wanted], folder: Path) -> dict[str, str]:
        missing = {}
        for one, content in zip(batch, self._contents(batch), strict=True):
            part = self._cache.part()
            try:
                why = self._fetch(one, content, part)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            if why:
                part.unlink(missing_ok=True)
                missing[one.md5] = why
            else:
                _link(part, folder / one.md5)
                self._cache.keep(part, one.md5)
        return missing

    def _contents(self, batch: Sequence[Wanted]) -> Sequence[bytes | None]:
        """Of all images of a batch, by one call; None for those that must be fetched alone: large ones, and whatever
        failed."""
        if sum(one.size for one in batch) > BATCH_BYTES:
            return [None] * len(batch)
        if batch[0].is_member:
            return _slices(self._objects, batch)
        return read_all(self._objects.fs, [self._objects.path(_name(one.stored)) for one in batch])

    def _fetch(self, one: Wanted, content: bytes | None, part: Path) -> str:
        """Writes a verified image to `part`; returns why it is not available. A copy that is damaged is fetched
        once more: the remote's may be sound."""
        if content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == one.md5:
            part.write_bytes(content)
            return ""
        found = ""
        for _ in range(2):
            try:
                self._objects.read(_name(one.stored), partial(_copy, one, part))
            except FileNotFoundError:
                return "missing in the DVC remote: run `dvc push`"
            found = md5(part)
            if found == one.md5:
                return ""
        return f"damaged in the DVC remote: its md5 is {found} there"


def _batches(wanted: list[Wanted]) -> Iterator[list[Wanted]]:
    """Files together, and members of one shard that lie close to each other."""
    wanted = sorted(wanted, key=lambda one: (one.is_member, one.stored if one.is_member else "", one.offset))
    batch: list[Wanted] = []
    size = 0
    for one in wanted:
        last = batch[-1] if batch else one
        apart = one.is_member != last.is_member or (
            one.is_member and (one.stored != last.stored or one.offset - last.end > GAP)
        )
        if batch and (apart or len(batch) == BATCH or size + one.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += one.size
    if batch:
        yield batch


def read_all(fs: Any, paths: Sequence[str]) -> list[bytes | None]:
    """The contents of small files; None for what cannot be read. Asynchronous file systems read them together."""
    if getattr(fs, "async_impl", False):
        from fsspec.asyn import sync

        async def every() -> list[Any]:
            return await asyncio.gather(*(fs._cat_file(path) for path in paths), return_exceptions=True)

        found = sync(fs.loop, every)
    else:
        found = [_attempt(fs.cat_file, path) for path in paths]
    return [content if isinstance(content, bytes) else None for content in found]


def _slices(objects: Folder, batch: Sequence[Wanted]) -> list[bytes | None]:
    """Members of one shard, from one read."""
    begin, end = batch[0].offset, max(one.end for one in batch)

    def read(file: BinaryIO) -> bytes:
        file.seek(begin)
        return b"".join(_pieces(file, end - begin))

    content = _attempt(lambda name: objects.read(name, read), _name(batch[0].stored))
    if not isinstance(content, bytes):
        return [None] * len(batch)
    return [content[one.offset - begin : one.end - begin] for one in batch]


def _attempt(read: Callable[[str], bytes], name: str) -> bytes | None:
    """None if it fails: it is tried again alone."""
    try:
        return read(name)
    except Exception:  # noqa: BLE001  (each remote has errors of its own)
        return None


def _copy(one: Wanted, part: Path, file: BinaryIO) -> None:
    file.seek(one.offset)
    with part.open("wb") as target:
        target.writelines(_pieces(file, one.size))


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next bytes; fewer if the file ends."""
    while size > 0 and (piece := file.read(min(PIECE, size))):
        size -= len(piece)
        yield piece


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest[2:]}"


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
