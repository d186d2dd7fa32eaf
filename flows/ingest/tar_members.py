"""Reads tar files that nobody has checked: one member after another, in bounded memory, to a whole end."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

HEADER = 16 << 20
"""The largest piece that the reader may ask for at once: names and attributes of one member."""

AT_ONCE = 1 << 20
"""Bytes that are read at a time."""

DAMAGED = (
    tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error, RuntimeError, OverflowError,
)  # fmt: skip
"""What the readers raise for damaged files. Errors of gzip and bz2 are an `OSError` without a number."""


class Forwards(io.RawIOBase):
    """The bytes of a tar file, read forwards, counted, and never many at a time.

    Args:
        limit: bytes after which no more are read.
    """

    def __init__(self, content: IO[bytes], limit: int) -> None:
        self._content, self._limit = content, limit
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise ValueError(f"a part of {size:,} bytes, where {HEADER:,} are allowed")
        if self._content.tell() > self._limit:
            raise ValueError(f"more than {self._limit / 1e6:,.0f} MB of content")
        self.last = self._content.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        while (left := offset - self.tell()) > 0:
            if not self.read(min(left, AT_ONCE)):
                break
        return self._content.seek(offset) if left < 0 else self.tell()

    def tell(self) -> int:
        return self._content.tell()


class Direct(Forwards):
    """The same of an uncompressed file, in which one may go to any place."""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._content.seek(offset)


def tar_members(content: Forwards) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member, with the archive that its bytes are read from.

    Raises:
        one of `DAMAGED`: it is no tar file, or damaged, or its end is missing.
    """
    with tarfile.open(fileobj=content, mode="r:", encoding="utf-8") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            archive.pax_headers.clear()  # type: ignore[attr-defined]
            yield archive, member
    if content.last != bytes(tarfile.BLOCKSIZE):  # `tarfile` takes a damaged header for the end
        raise ValueError("the end is missing: it is cut, or damaged in the middle")


def relative(name: str) -> str | None:
    """The name with slashes; None if it is absolute, leads upwards, is empty or is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(part == ".." or "\0" in part or len(part.encode()) > 255 for part in parts):
        return None
    return None if name.startswith("/") or parts[0].endswith(":") else "/".join(parts)


def is_plain(member: tarfile.TarInfo) -> bool:
    """Whether it is a file, and no link, device or one with holes."""
    return member.isreg() and not member.issparse() and member.size >= 0
