"""Unpacks zip and tar archives that nobody has checked: nothing outside the given folder, no links, bounded size."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.progress import say
from graft.tasks.preprocess.layouts import hidden

from .tar_members import AT_ONCE, DAMAGED, Forwards, is_plain, relative, tar_members

OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": io.FileIO,
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
    ".tar.bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
}
"""Suffix of a tar archive -> how its bytes are read."""

SUFFIXES = (".zip", *OPENERS)

MEMBERS = 1_000_000
"""The largest number of members."""

RATIO = 200
"""How many times the size of the archive its content may have; images are compressed already."""

ALWAYS = 256 << 20
"""Bytes that an archive may hold whatever its own size."""

SPARE = 1 << 30
"""Bytes of the disk that stay free."""

DIRECTORY = 128 << 20
"""The largest table of contents of a zip archive, which is read into memory as a whole."""


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


@dataclass
class _Unpacked:
    """What has been taken out of an archive, and how much more may be.

    Attributes:
        archive: for messages.
        folder: where the members go.
        limit: the largest number of bytes.
        hidden: names of members that systems leave behind.
    """

    archive: Path
    folder: Path
    limit: int
    written: int = 0
    members: int = 0
    hidden: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def refuse(self, name: str, why: str, allowed: str = "", todo: str = "") -> DataError:
        return DataError(
            f"{self.archive} cannot be unpacked",
            got=f"{name.encode('utf-8', 'backslashreplace').decode()}: {why}",
            allowed=allowed or "files and folders with relative names in UTF-8, without `..`, each once",
            todo=todo or "unpack it yourself where that does no harm, and import the folder",
        )

    def count(self, more: int, name: str) -> None:
        self.written += more
        if self.written > self.limit:
            raise self.refuse(
                name,
                f"with it the content has more than {self.limit / 1e6:,.0f} MB",
                f"{RATIO} times the size of the archive, and what fits on the disk",
                "free some space; or, if you trust the archive, unpack it yourself and import the folder",
            )

    def place(self, name: str) -> Path | None:
        """Where a file goes; None for what systems leave behind."""
        self.members += 1
        if self.members > MEMBERS:
            raise self.refuse(name, f"it is the member after {MEMBERS:,} others", f"{MEMBERS:,} members")
        inside = relative(name)
        if inside is None:
            raise self.refuse(name, "not a name for a file inside the folder")
        if hidden(inside):
            self.hidden.append(inside)
            return None
        if inside in self.names:
            raise self.refuse(name, "two members have this name")
        self.names.add(inside)
        return self.folder / inside

    def write(self, content: IO[bytes], place: Path, name: str) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as target:
                while piece := content.read(AT_ONCE):
                    self.count(len(piece), name)
                    target.write(piece)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refuse(name, "a file and a folder have this name") from error


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks an archive into an empty folder, and returns the names of members that systems leave behind.

    Raises:
        DataError: it is damaged, or has members that are encrypted, no files or folders, lead out of the folder, stand
            twice or hold too much.
        OSError: writing failed.
    """
    size = archive.stat().st_size
    free = shutil.disk_usage(folder).free - SPARE
    unpacked = _Unpacked(archive, folder, max(0, min(free, max(ALWAYS, RATIO * size))))
    say(f"import: unpacking {archive.name}, {size / 1e6:,.1f} MB")
    try:
        (_unzip if archive.name.lower().endswith(".zip") else _untar)(unpacked)
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(unpacked, error) from error
    except (zipfile.BadZipFile, *DAMAGED) as error:
        raise _damaged(unpacked, error) from error
    return unpacked.hidden


def _damaged(unpacked: _Unpacked, error: Exception) -> DataError:
    after = f" after {unpacked.members:,} members" if unpacked.members else ""
    return DataError(
        f"{unpacked.archive} is damaged, or no archive",
        got=f"{error or type(error).__name__}{after}",
        allowed=", ".join(SUFFIXES),
        todo="download or pack it again",
    )


def _unzip(unpacked: _Unpacked) -> None:
    _refuse_a_large_directory(unpacked)
    with zipfile.ZipFile(unpacked.archive) as archive:
        for member in archive.infolist():
            name = _zip_name(member)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise unpacked.refuse(name, "it is a link or a special file")
            if name.endswith("/"):
                continue
            place = unpacked.place(name)
            if place is None:
                continue
            if member.flag_bits & 1:
                todo = "unpack it with its password, and import the folder"
                raise unpacked.refuse(name, "it is encrypted", "members that anybody can read", todo)
            try:
                with archive.open(member) as content:
                    unpacked.write(content, place, name)
            except NotImplementedError as error:
                raise unpacked.refuse(name, str(error)) from error


def _refuse_a_large_directory(unpacked: _Unpacked) -> None:
    """The end of a zip file states how long the table of contents is, which `ZipFile` reads at once."""
    with unpacked.archive.open("rb") as file:
        file.seek(-min(unpacked.archive.stat().st_size, (1 << 16) + 42), io.SEEK_END)
        end = file.read()
    large, plain = end.rfind(b"PK\6\6"), end.rfind(b"PK\5\6")
    size = struct.unpack_from("<Q", end, large + 40)[0] if large >= 0 else 0
    size = max(size, struct.unpack_from("<I", end, plain + 12)[0] % 0xFFFFFFFF if plain >= 0 else 0)
    if size > DIRECTORY:
        raise unpacked.refuse("its table of contents", f"it has {size / 1e6:,.0f} MB", f"{DIRECTORY / 1e6:,.0f} MB")


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The name with slashes. Some systems write UTF-8 without saying so, which is then read as code page 437."""
    name = member.orig_filename
    if not member.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _untar(unpacked: _Unpacked) -> None:
    name = unpacked.archive.name.lower()
    opened = next(opener for suffix, opener in OPENERS.items() if name.endswith(suffix))
    with opened(unpacked.archive) as content:
        bounded = Forwards(content, unpacked.limit + ALWAYS)
        _take_members(bounded, unpacked)
        while bounded.read(AT_ONCE):  # to the end, where the checksum is
            continue


def _take_members(bounded: Forwards, unpacked: _Unpacked) -> None:
    for archive, member in tar_members(bounded):
        if member.isdir():
            continue
        place = unpacked.place(member.name)
        if not is_plain(member):
            raise unpacked.refuse(member.name, "it is a link or a special file")
        part = archive.extractfile(member)
        if place is not None and part is not None:
            unpacked.write(part, place, member.name)
