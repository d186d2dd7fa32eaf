"""A packet as files: packet.json, which lists them with their SHA-256; and the same as a zip.

The same files give the same packet.json and the same zip, byte for byte: the zip is not compressed, since compressors
differ between machines, and has no times.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any, Protocol

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import whole_file

INDEX, SIGNATURE = "packet.json", "signature.json"

FORMAT = 1
"""Of packet.json."""

LARGEST = 64 * 2**20
"""Bytes of a packet.json or a signature that are read at most."""

BLOCK = 2**20

ENCRYPTED = 0x1
"""The flag of a member of a zip."""

UNREADABLE = (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError)
"""What a damaged zip raises when a member of it is read."""

Document = dict[str, Any]


def text_of(content: Document) -> str:
    """The only way to write packet.json and the signature: other bytes are a change."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def index_of(folder: Path, about: Mapping[str, Any]) -> Document:
    """The content of packet.json: the facts, all other files, and a digest of the rest."""
    files = {
        file.relative_to(folder).as_posix(): {"sha256": _sha256(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).as_posix() not in (INDEX, SIGNATURE)
    }
    content = {"format": FORMAT, **about, "files": files}
    return {**content, "digest": digest_of(content)}


def digest_of(index: Mapping[str, Any]) -> str:
    """Identifies a packet: the SHA-256 of packet.json without its digest."""
    rest = {key: value for key, value in index.items() if key != "digest"}
    return f"sha256:{hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


class Contents(Protocol):
    """The files of a packet, wherever they are.

    Attributes:
        faults: what is wrong with the packet as a container, in words.
    """

    faults: list[str]

    def names(self) -> list[str]: ...

    def open(self, name: str) -> IO[bytes]: ...


class Folder:
    """A packet as a folder. A link counts as a fault: what it leads to may change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = sorted(file for file in root.rglob("*") if file.is_symlink() or not file.is_dir())
        self.faults = [f"{self._name(file)} is no regular file" for file in self._files if not _is_regular(file)]

    def names(self) -> list[str]:
        return [self._name(file) for file in self._files if _is_regular(file)]

    def open(self, name: str) -> IO[bytes]:
        return (self._root / name).open("rb")

    def _name(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()


def _is_regular(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


class Zip:
    """A packet as a zip, read in place. Its bytes must be those that `write_zip` writes; members that it never writes,
    such as compressed ones, are not read."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        self._file, self._path = file, path
        every = file.infolist()
        infos = [info for info in every if not [*_faults(info)]]
        self.faults = [fault for info in every for fault in _faults(info)]
        self._top = PurePosixPath(infos[0].filename).parts[0] if infos else ""
        self._infos = {info.filename.removeprefix(f"{self._top}/"): info for info in infos}
        if len(self._infos) != len(infos):
            self.faults.append("two files have the same name")
        if not self.faults and not self._is_as_written():
            self.faults.append("the zip is not as Graft writes it: bytes outside of its files were changed")

    def names(self) -> list[str]:
        return list(self._infos)

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(self._infos[name])

    def _is_as_written(self) -> bool:
        """Writes the zip again and compares."""
        with TemporaryFile() as again, self._path.open("rb") as this:
            try:
                _fill(again, self._top, self._infos, self.open)
            except UNREADABLE:  # which file it is, its digest says
                return True
            again.seek(0)
            return _digest(again) == _digest(this)


def _faults(info: zipfile.ZipInfo) -> Iterator[str]:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        yield f"{info.filename} is not inside the packet's folder"
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & ENCRYPTED:
        yield f"{info.filename} is compressed or encrypted; Graft writes packets as they are"


def _digest(file: IO[bytes]) -> bytes:
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """The files of a packet.

    Raises:
        GraftError: it is neither a folder nor a zip.
    """
    if path.is_dir():
        yield Folder(path)
        return
    if not path.is_file():
        raise GraftError("there is no such packet", got=path, allowed="a folder or a zip that `graft packet` wrote")
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise GraftError("the packet cannot be read", got=f"{path}: {error}", todo="get another copy of it") from error
    with file:
        yield Zip(file, path)


def read_index(contents: Contents) -> Document:
    """packet.json.

    Raises:
        GraftError: there is none, it is not one, or of another version of Graft.
    """
    content = read_document(contents, INDEX)
    if content.get("format") != FORMAT or not isinstance(content.get("files"), dict):
        raise GraftError(
            f"{INDEX} has another format", got=str(content.get("format"))[:100], allowed=f"{FORMAT}, with `files`",
            todo="use the version of Graft that wrote the packet",
        )  # fmt: skip
    return content


def read_document(contents: Contents, name: str) -> Document:
    """A JSON file of the packet.

    Raises:
        GraftError: there is none, or it is none.
    """
    if name not in contents.names():
        raise GraftError(f"the packet has no {name}", todo="name the folder or the zip that `graft packet` wrote")
    try:
        content = json.loads(read_bytes(contents, name))
    except (ValueError, RecursionError, *UNREADABLE) as error:
        raise GraftError(f"{name} cannot be read", got=error, todo="get another copy of the packet") from error
    if not isinstance(content, dict):
        raise GraftError(f"{name} cannot be read", got=type(content).__name__, todo="get another copy of the packet")
    return content


def read_bytes(contents: Contents, name: str) -> bytes:
    """A small file.

    Raises:
        GraftError: it is larger than `LARGEST`.
    """
    with contents.open(name) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise GraftError(f"{name} is too large", got=f"more than {LARGEST:,} bytes", todo="get another copy")
    return content


def sha256_in(contents: Contents, name: str) -> str:
    """The SHA-256 of a file; empty if it cannot be read, as where a zip's own checksum fails."""
    digest = hashlib.sha256()
    try:
        with contents.open(name) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except UNREADABLE:
        return ""
    return digest.hexdigest()


def write_zip(folder: Path, target: Path) -> None:
    """The packet as a zip, in a folder of the packet's name."""
    files = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    with whole_file(target) as part, part.open("wb") as out:
        _fill(out, folder.name, files, lambda name: (folder / name).open("rb"))


def _fill(out: IO[bytes], top: str, names: Iterable[str], read: Callable[[str], IO[bytes]]) -> None:
    """Writes a zip file by file, in this order."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name in names:
            info = zipfile.ZipInfo(f"{top}/{name}")
            info.external_attr = 0o644 << 16
            info.create_system = 3
            with read(name) as content, made.open(info, "w") as target:
                shutil.copyfileobj(content, target, BLOCK)
