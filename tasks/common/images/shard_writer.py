"""Writes images into shards: tar files of bounded size, each with an index beside it.

A shard and its index depend on nothing but the names and bytes of their members: the same images give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
from pyarrow import parquet

from ..core.errors import DataError
from .shard_index import SCHEMA
from .shard_size import SIZE_MB
from .shards import index_of

MEMBERS = 20_000
"""The largest number of members of a shard."""

SIZE_KEY = b"graft.shard_mb"
"""What the metadata of an index call the size for which the shard was written."""

AT_ONCE = 1 << 20
"""Bytes that are read at a time."""

_ASTRAY = re.compile(r"(^|/)\.{0,2}(/|$)|\0")
"""A name that is empty or absolute, or has an empty part, `.` or `..`."""

LARGE = 8**11
"""Bytes whose number does not fit into a plain header."""

LAST_BLOCKS = 2 * tarfile.BLOCKSIZE
"""Zeros that end a tar file, before it is filled up to a whole record."""


def shard_name(number: int) -> str:
    return f"shard-{number:06}.tar"


def is_member_name(name: str) -> bool:
    """Whether a member may have this name: relative, with slashes, in UTF-8, and leading nowhere else."""
    with suppress(UnicodeEncodeError):
        return not _ASTRAY.search(name) and max(map(len, name.encode().split(b"/"))) <= 255
    return False


def needed(members: Iterable[tuple[str, int]], size_mb: int) -> int:
    """The number of shards for members of these names and bytes."""
    room, shards = _Room(size_mb), 0
    for name, size in members:
        shards += int(not room.take(len(_header(name, size)) + size) or not shards)
    return shards


class _Room:
    """What still fits into a shard."""

    def __init__(self, size_mb: int) -> None:
        self._limit = size_mb * 10**6 // tarfile.RECORDSIZE * tarfile.RECORDSIZE - LAST_BLOCKS
        self._used = self._members = 0

    def take(self, size: int) -> bool:
        """Whether a member's header and bytes go into the same shard as those before."""
        size += -size % tarfile.BLOCKSIZE
        fits = not self._members or (self._members < MEMBERS and self._used + size <= self._limit)
        self._used, self._members = (self._used + size, self._members + 1) if fits else (size, 1)
        return fits


def _header(name: str, size: int) -> bytes:
    """What stands before a member's bytes: no time, no owner, no name of a machine."""
    if name.isascii() and len(name) <= tarfile.LENGTH_NAME and size < LARGE:
        return _plain_header(name.encode(), b"%011o" % size)
    return _tar_header(name, size)


def _tar_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


TEMPLATE = _tar_header("", 0)
"""The header of a member without a name and bytes: `tarfile` takes 50 us for each, more than an image's md5."""


def _plain_header(name: bytes, size: bytes) -> bytes:
    """The bytes that `_tar_header` gives, whose checksum is the sum of the others, with spaces in its own place."""
    total = int(TEMPLATE[148:154], 8) + sum(name) + sum(size) - sum(TEMPLATE[124:135])
    return b"".join(
        [name.ljust(100, b"\0"), TEMPLATE[100:124], size, TEMPLATE[135:148], b"%06o" % total, TEMPLATE[154:]]
    )


class Index:
    """The rows of one index, of about 60 bytes each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._md5s = bytearray()
        self._offsets, self._sizes = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, md5: bytes, offset: int, size: int) -> None:
        """Args:
        md5: 16 bytes.
        """
        self._names.append(name)
        self._md5s += md5
        self._offsets.append(offset)
        self._sizes.append(size)

    def write(self, shard: Path, size_mb: int | None = None) -> None:
        """Writes the index beside its shard."""
        md5s = pa.Array.from_buffers(pa.binary(16), len(self), [None, pa.py_buffer(bytes(self._md5s))])
        columns = [pa.array(self._names, pa.string()), md5s, pa.array(self._offsets), pa.array(self._sizes)]
        schema = SCHEMA.with_metadata({SIZE_KEY: str(size_mb)} if size_mb else None)
        table = pa.Table.from_arrays(columns, schema=schema)
        parquet.write_table(table, shard.with_name(index_of(shard.name)), compression="zstd", use_dictionary=False)


class ShardWriter:
    """Writes members, one after another, into as few shards of a folder as their size allows.

    A member is never divided: one that is larger than a shard has a shard of its own. Nothing is whole before the block
    has ended, so give it a folder that nobody reads yet.

    Args:
        size_mb: the largest size of a shard, in millions of bytes.
        first: the number of the first shard.
    """

    def __init__(self, folder: Path, size_mb: int = SIZE_MB, first: int = 0) -> None:
        self._folder, self._size_mb, self._next = folder, size_mb, first
        self._room = _Room(size_mb)
        self._index = Index()
        self._file: BinaryIO | None = None
        self.shards: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()
        elif self._file is not None:
            self._file.close()

    def add(self, name: str, content: BinaryIO, size: int) -> str:
        """Writes one member and returns its md5, in 32 hexadecimal digits.

        Args:
            name: the path below data/raw, with slashes.
            content: is read from where it stands.
            size: the number of bytes to take.

        Raises:
            DataError: the name leads elsewhere, or there are fewer bytes.
        """
        if not is_member_name(name):
            raise DataError("a file cannot become a member of a shard", got=repr(name), todo="rename it")
        header = _header(name, size)
        if not self._room.take(len(header) + size):
            self._end()
        file = self._file or self._begin()
        file.write(header)
        offset = file.tell()
        digest = _copied(name, content, size, file)
        file.write(bytes(-size % tarfile.BLOCKSIZE))
        self._index.add(name, digest, offset, size)
        return digest.hex()

    def _begin(self) -> BinaryIO:
        shard = self._folder / shard_name(self._next)
        self._file = shard.open("xb", AT_ONCE)
        self.shards.append(shard)
        self._next += 1
        return self._file

    def _end(self) -> None:
        """Ends the shard as `tar` does, and writes its index."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            end = file.tell() + LAST_BLOCKS
            file.write(bytes(LAST_BLOCKS + -end % tarfile.RECORDSIZE))
        self._index.write(self.shards[-1], self._size_mb)
        self._index = Index()


def _copied(name: str, content: BinaryIO, size: int, place: BinaryIO) -> bytes:
    """Copies `size` bytes and returns their md5, in 16 bytes."""
    digest, left = hashlib.md5(usedforsecurity=False), size
    while left:
        piece = content.read(min(left, AT_ONCE))
        if not piece:
            raise DataError(
                "a file became shorter while it was read", got=f"{name}: {size - left:,} of {size:,} bytes",
                todo="try again when nothing else writes to it",
            )  # fmt: skip
        digest.update(piece)
        place.write(piece)
        left -= len(piece)
    return digest.digest()
