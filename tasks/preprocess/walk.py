"""The listing of a folder of images: its regular files, each once, and the other entries.

Users' folders contain links that lead out of them or in circles, FIFOs, folders without permission and names in unknown
encodings. None of these may be followed, waited for, or left out silently.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import deque
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path

from ..common.core.errors import DataError
from ..common.images.shards import below, members_of, refuse_twice, shards_of
from .layouts import hidden

OUTSIDE = "a link that leads out of the folder"
"""Why an entry is left out that is followed with `outside`."""

BROKEN = "a broken link, or one to itself"
"""Why a link without a target is left out."""

ITSELF = "the folder itself"
"""The name of the listed folder itself, if it is left out."""


@dataclass
class Listing:
    """The entries below a folder. Names are relative, with slashes.

    Attributes:
        files: name -> the regular file itself, without links on its path; sorted by name.
        repeated: links to a file or a folder that is listed under another name.
        left_out: name -> why it is not listed; for a name that is not UTF-8, the name with escapes.
    """

    files: dict[str, Path] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def missed(self) -> dict[str, str]:
        """Entries that are left out although their names are not those of system files."""
        return {name: why for name, why in self.left_out.items() if not hidden(name)}


def walk(folder: Path, *, outside: bool = False) -> Listing:
    """Lists a folder, following only links to entries inside it. It reads names and opens no file.

    Each folder is entered once, so links in a circle end. A file is listed under its own name rather than a link's,
    unless its own name is hidden.

    Args:
        outside: also follow links out of the folder, and list every link to a file, as DVC's own links to its cache
            need it.
    """
    return _Walk(os.path.realpath(folder), outside).run()


def list_files(folder: Path) -> list[str]:
    """Sorted names, with slashes, of all files below a folder whose content is trusted; links are followed.

    Of a folder with shards the images in these are listed, as if they were files, and not the shards. A broken link is
    listed as well: it stands for an image, which is rejected by name when it is read.

    Raises:
        DataError: an entry cannot be listed; the error names up to five. A shard is damaged, or a file has the name of
            an image in one.
    """
    files = files_on_disk(folder)
    shards, stored = shards_of(folder) if folder.is_dir() else None, below(folder)
    apart = frozenset[str]() if shards is None else shards.files
    files = [name for name in files if name not in apart]
    refuse_twice(sorted({*files}.intersection(stored)), folder)
    return sorted([*files, *stored])


def named_by(path: Path) -> tuple[Path, list[str]] | None:
    """A folder and the names of the files below it that a folder means, or one shard; None for any other path. A folder
    may be one that only shards have.

    Raises:
        DataError: as `list_files`.
    """
    members = members_of(path)
    if members is not None:
        return path.parent, members
    return (path, list_files(path)) if path.is_dir() or below(path) else None


def files_on_disk(folder: Path) -> list[str]:
    """The same without a look into shards, which are listed themselves.

    Raises:
        DataError: an entry cannot be listed; the error names up to five.
    """
    if not folder.is_dir():
        return []
    listing = walk(folder, outside=True)
    broken = [name for name, why in listing.left_out.items() if why == BROKEN]
    left_out = {name: why for name, why in listing.left_out.items() if why != BROKEN}
    refuse_what_was_missed(folder, replace(listing, left_out=left_out))
    return sorted([*listing.files, *broken])


def refuse_what_was_missed(folder: Path, listing: Listing) -> None:
    """Images must not be left out silently.

    Raises:
        DataError: an entry below the folder is neither listed nor hidden.
    """
    missed = listing.missed()
    if not missed:
        return
    named = "; ".join(f"{name} ({why})" for name, why in list(missed.items())[:5])
    todo = "remove or repair the named entries"
    if OUTSIDE in missed.values():
        todo += "; to follow links that lead out of the folder, `graft import --allow-outside`"
    raise DataError(
        f"{folder} contains entries that are not image files",
        got=f"{len(missed):,}: {named}{'; ...' if len(missed) > 5 else ''}",
        allowed="regular files with names in UTF-8, folders that can be read, and links to these",
        todo=todo,
    )


def open_regular(file: Path, within: Path) -> BufferedReader:
    """Opens a regular file below a folder for reading. It never waits, and follows no link below `within`: a file may
    have been replaced since it was listed.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    *folders, name = _inside(os.fspath(file), os.path.join(within, "")).split("/")  # noqa: PTH118  (thrice as fast)
    parent = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            os.close(parent)
            parent = below
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(name, flags, dir_fd=parent)
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return os.fdopen(opened, "rb")


def _inside(file: str, within: str) -> str:
    if not file.startswith(within):
        raise ValueError(f"{file} is not below {within}")
    return file[len(within) :]


def copy_regular(file: Path, within: Path, place: Path) -> None:
    """The content of a regular file, see `open_regular`, as a new file.

    Raises:
        DataError: it cannot be opened.
        OSError: reading or writing failed on the way.
    """
    try:
        source = open_regular(file, within)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read", got=error.strerror, todo="make it readable, or remove it from the folder"
        ) from error
    with source, place.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


class _Walk:
    """One walk. Real entries come before links and hidden ones last, so that a file is listed under its best name."""

    def __init__(self, root: str, outside: bool) -> None:
        self._root, self._outside = root, outside
        self._listing = Listing()
        self._seen: set[str] = set()
        self._real: deque[tuple[str, str, bool]] = deque([("", root, True)])
        self._links: deque[tuple[str, str]] = deque()
        self._hidden: deque[tuple[str, str, bool]] = deque()

    def run(self) -> Listing:
        while self._real or self._links or self._hidden:
            if self._real:
                self._take(*self._real.popleft())
            elif self._links:
                self._follow(*self._links.popleft())
            else:
                self._take(*self._hidden.popleft())
        found = self._listing
        return Listing(dict(sorted(found.files.items())), sorted(found.repeated), dict(sorted(found.left_out.items())))

    def _take(self, name: str, real: str, is_folder: bool) -> None:
        """A folder or a regular file, by a path without links."""
        if (is_folder or not self._outside) and real in self._seen:
            self._listing.repeated.append(name)
            return
        self._seen.add(real)
        if is_folder:
            self._enter(name, real)
        else:
            self._listing.files[name] = Path(real)

    def _enter(self, name: str, real: str) -> None:
        try:
            with os.scandir(real) as entries:
                for entry in entries:
                    self._sort(f"{name}/{entry.name}" if name else entry.name, entry)
        except OSError as error:
            self._listing.left_out[name or ITSELF] = f"the folder cannot be read: {error.strerror}"

    def _sort(self, name: str, entry: os.DirEntry[str]) -> None:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            escaped = os.fsencode(name).decode("utf-8", "backslashreplace")
            self._listing.left_out[escaped] = "its name is not UTF-8"
            return
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.is_symlink():
            self._links.append((name, entry.path))
        elif is_folder or entry.is_file(follow_symlinks=False):
            (self._hidden if hidden(name) else self._real).append((name, entry.path, is_folder))
        else:
            self._listing.left_out[name] = "a FIFO, a socket or a device"

    def _follow(self, name: str, link: str) -> None:
        try:
            real = os.path.realpath(link, strict=True)
            mode = os.stat(real).st_mode  # noqa: PTH116  (paths are strings here: there may be millions)
        except OSError:
            self._listing.left_out[name] = BROKEN
            return
        if not self._outside and os.path.commonpath([real, self._root]) != self._root:
            self._listing.left_out[name] = OUTSIDE
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            self._take(name, real, stat.S_ISDIR(mode))
        else:
            self._listing.left_out[name] = "a link to a FIFO, a socket or a device"
