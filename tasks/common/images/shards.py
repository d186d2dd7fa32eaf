"""Images in shards: tar files, each with its index beside it. They are read by offset, and nothing is unpacked.

A folder with shards means the same tree of files as one without: `folder / name` names an image in both, and `stored`
says where its bytes are. Beside the shards there may be ordinary files.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..core.errors import DataError
from ..core.files import md5
from .shard_names import AGAIN
from .shard_names import INDEX as INDEX
from .shard_names import TAR as TAR
from .shard_names import Member as Member
from .shard_names import index_of as index_of
from .shard_names import refuse_twice as refuse_twice

if TYPE_CHECKING:
    from .shard_members import Shards

HELD = 8
"""Folders whose index is kept in memory."""

FRESH = 1.0
"""Seconds for which a folder that looks unchanged is not listed again to read one image."""

_State = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of the last change in nanoseconds and inode of the files of all shards."""


@dataclass
class _Held:
    """Folder -> what is known of it; the oldest are forgotten."""

    shards: dict[Path, tuple[_State, Shards]] = field(default_factory=dict)
    near: dict[str, tuple[tuple[int, int], float, Shards | None]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def keep(kept: dict[Any, Any], key: object, value: object, most: int) -> None:
        kept.pop(key, None)
        while len(kept) >= most:
            kept.pop(next(iter(kept)))
        kept[key] = value


_HELD = _Held()


def shards_of(folder: Path) -> Shards | None:
    """The shards of a folder; None if it has none. They are read again when their files have changed.

    Raises:
        DataError: an index is damaged, or describes another tar; a tar lacks its index, or an index its tar; two images
            have the same name.
        OSError: the folder or a file in it cannot be read.
    """
    with _HELD.lock:
        state = _state(folder)
        if not any(name.endswith(INDEX) for name, *_ in state):
            return None
        known, shards = _HELD.shards.get(folder, (None, None))
        if known != state or shards is None:
            shards = _read(folder, [(name, size) for name, size, *_ in state])
        _HELD.keep(_HELD.shards, folder, (state, shards), HELD)
        return shards


def _state(folder: Path) -> _State:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((TAR, INDEX)) and not entry.name.startswith("."):
                try:
                    seen = entry.stat()
                except FileNotFoundError:
                    found.append((entry.name, -1, -1, -1))  # a broken link, named when it is read
                    continue
                if stat.S_ISREG(seen.st_mode):
                    found.append((entry.name, seen.st_size, seen.st_mtime_ns, seen.st_ino))
    return tuple(sorted(found))


def _read(folder: Path, state: list[tuple[str, int]]) -> Shards:
    from .shard_index import read_index
    from .shard_members import Shards

    tars = [name for name, _ in state if name.endswith(TAR)]
    _refuse_alone(folder, {*tars}, {name for name, _ in state if name.endswith(INDEX)})
    sizes = dict(state)
    return Shards(folder, tars, [read_index(folder / index_of(tar), folder / tar, sizes[tar]) for tar in tars])


def _refuse_alone(folder: Path, tars: set[str], indexes: set[str]) -> None:
    without = [(tar, index_of(tar)) for tar in tars if index_of(tar) not in indexes]
    without += [(index, tar) for index in indexes if (tar := index.removesuffix(INDEX) + TAR) not in tars]
    if without:
        here, lacking = min(without)
        raise DataError(
            f"{folder / here} is half of a shard",
            got=f"no {lacking}",
            allowed=f"two files for a shard: NAME{TAR} and NAME{INDEX}",
            todo="restore the other half (`dvc checkout data/raw`, or `dvc pull`), or take this one out of the folder; "
            "images of a tar from elsewhere come in with `graft import`",
        )


def stored(path: Path) -> Member | None:
    """The image in a shard that a path means; None if no folder above it has shards, or they do not have it.

    It is meant for a path that is no file itself: of a name that is both, the file counts.

    Raises:
        DataError: as `shards_of`.
    """
    whole = _whole(path)
    shards, name = _nearest(whole, os.path.dirname(whole))  # noqa: PTH120
    return None if shards is None else shards.find(name)


def below(folder: Path) -> list[str]:
    """The names, below a folder, of the images in shards that it means; it need not be there.

    Raises:
        DataError: as `shards_of`.
    """
    whole = _whole(folder)
    shards, name = _nearest(whole, whole)
    if shards is None:
        return []
    above = f"{name}/" if name else ""
    return [one[len(above) :] for one in shards.names(above)]


def members_of(path: Path) -> list[str] | None:
    """The names of the images in a shard, below its folder; None for a file that is no shard.

    Raises:
        DataError: as `shards_of`.
    """
    if not (path.name.endswith(TAR) and path.with_name(index_of(path.name)).is_file() and path.is_file()):
        return None
    shards = shards_of(path.absolute().parent)
    return None if shards is None or path.name not in shards.files else shards.names_in(path.name)


def _whole(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (`resolve` would follow links)


def _nearest(whole: str, folder: str) -> tuple[Shards | None, str]:
    """The shards of a folder, or of the nearest one above that has some, and a path from there."""
    while True:
        shards = _near(folder)
        if shards is not None:
            return shards, whole[len(folder) :].lstrip(os.sep).replace(os.sep, "/")
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            return None, ""
        folder = above


def _near(folder: str) -> Shards | None:
    """`shards_of`, without a listing for each image: a folder is listed again if its own time has changed, which a new,
    renamed or removed file does, and otherwise from time to time."""
    try:
        seen = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    state, now = (seen.st_mtime_ns, seen.st_ino), time.monotonic()
    known = _HELD.near.get(folder)
    if known is not None and known[0] == state and now < known[1]:
        return known[2]
    try:
        shards = shards_of(Path(folder))
    except (PermissionError, NotADirectoryError, FileNotFoundError):
        shards = None
    settled = abs(time.time() - seen.st_mtime) > FRESH  # a clock of files is coarse: more may change in the same tick
    until = time.monotonic() + max(FRESH, 20 * (time.monotonic() - now)) if settled else 0.0
    with _HELD.lock:
        _HELD.keep(_HELD.near, folder, (state, until, shards), 8 * HELD)
    return shards


@contextmanager
def opening(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """An ordinary file, or an image in a shard, opened for reading from its first to its last byte; and its size.

    Each call has its own file, so threads may read at once. The bytes are compared with no hash, see `check_member`.

    Raises:
        OSError: it cannot be opened.
        DataError: as `shards_of`.
    """
    with ExitStack() as held:
        try:
            opened = held.enter_context(path.open("rb"))
        except (FileNotFoundError, NotADirectoryError):
            member = stored(path)
            if member is None:
                raise
            yield held.enter_context(opening_member(member)), member.size
        else:
            yield opened, os.fstat(opened.fileno()).st_size


def bytes_of(member: Member, path: Path) -> bytes:
    """Args:
        path: the name of the image, for the error.

    Raises:
        OSError: the shard cannot be read.
        DataError: the bytes are not those that the index describes.
    """
    with open(member.file, "rb", buffering=0) as file:  # noqa: PTH123  (Path.open takes twice as long)
        file.seek(member.offset)
        content = file.read(member.size)
        while len(content) < member.size and (more := file.read(member.size - len(content))):
            content += more
    check_member(content, member, path)
    return content


@contextmanager
def opening_member(member: Member) -> Iterator[BinaryIO]:
    """Raises:
    OSError: the shard cannot be opened.
    """
    with member.file.open("rb", buffering=0) as file:
        yield io.BufferedReader(_Part(file, member))


def check_member(content: bytes, member: Member, path: Path) -> None:
    """Args:
        path: the name of the image, for the error.

    Raises:
        DataError: the content is not what the index says.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != member.md5:
        raise DataError(
            f"{member.file} is damaged, or is not the shard that its index describes",
            got=f"{path}: md5 {found}",
            allowed=f"md5 {member.md5}",
            todo=AGAIN,
        )


class _Part(io.RawIOBase):
    """The bytes of one member as a file of their own; its end is theirs."""

    def __init__(self, file: io.FileIO, member: Member) -> None:
        self._file, self._first, self._size, self._at = file, member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if not count:
            return 0
        self._file.seek(self._first + self._at)
        got = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._at += got
        return got


def is_stored(path: Path) -> bool:
    """Whether there is a file, or an image in a shard, of this name."""
    return path.is_file() or stored(path) is not None


def size_of(path: Path) -> int:
    """Bytes of a file, or of an image in a shard.

    Raises:
        OSError: there is none.
        DataError: as `shards_of`.
    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        member = stored(path)
        if member is None:
            raise
        return member.size


def hash_of(path: Path) -> str:
    """The md5 of a file; of an image in a shard the one in its index, which is compared when the image is read.

    Raises:
        OSError: it cannot be read.
        DataError: as `shards_of`.
    """
    try:
        return md5(path)
    except (FileNotFoundError, NotADirectoryError):
        member = stored(path)
        if member is None:
            raise
        return member.md5
