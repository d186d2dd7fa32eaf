"""Files that are whole or absent: written under a temporary name, flushed to disk, then renamed.

Without the flush, a power failure soon after the rename can leave the new name with no content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ABANDONED = 3600.0
"""Seconds after which a half-written shared file is considered left over from a killed process."""

LEFT = 1 / 4
"""Share of the disk's free space that is left to others."""

FLUSHED_SINGLY = 64
"""Up to this many files of a folder are flushed one by one (3 to 10 ms each); 60,000 images would take minutes."""

_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP})
"""Errors of some network file systems when a folder is flushed."""


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` that becomes `target` if the block succeeds, and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    part = _beside(target, "part")
    try:
        yield part
        _into_place(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that replaces `target` when the block succeeds.

    Leftovers of a killed process are removed first, so that there is at most one; an earlier `target` that it had set
    aside and not yet replaced is restored.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    part = _beside(target, "part")
    part.mkdir()
    try:
        yield part
        flush_tree(part)
        _exchange(target, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(target: Path, part: Path) -> None:
    """At every moment either the old or the new folder exists whole, under this name or another."""
    old = _beside(target, "old.part")
    if target.exists():
        target.replace(old)
    try:
        part.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _into_place(part: Path, target: Path) -> None:
    """Renames a file so that after a power failure `target` is the old file or the new one, whole."""
    _flush(part)
    part.replace(target)
    _flush(target.parent)


def flush_tree(folder: Path) -> None:
    """Every file below `folder`, then the folders that name them; all that the machine has written if they are many,
    because each flush waits for the disk."""
    tree = [(Path(parent), names) for parent, _, names in os.walk(folder, topdown=False)]
    if sum(len(names) for _, names in tree) > FLUSHED_SINGLY:
        os.sync()
        return
    for parent, names in tree:
        for name in names:
            if not (parent / name).is_symlink():
                _flush(parent / name)
        _flush(parent)


def _flush(path: Path) -> None:
    """Writes a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(handle)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{kind}")


def _remove_leftovers(target: Path) -> None:
    for stale in target.parent.glob(f".{target.name}.*.part"):
        number = re.fullmatch(r"(\d+)(\.old)?\.part", stale.name.removeprefix(f".{target.name}."))
        if not number or (int(number[1]) != os.getpid() and _alive(int(number[1]))):
            continue  # another target's, or still being written; our own number comes again, in containers at once
        if number[2] and not target.exists():
            stale.replace(target)
        elif stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink(missing_ok=True)


def write_shared(target: Path, content: bytes) -> None:
    """A file in a folder into which other processes, perhaps of other machines or containers, write at the same time.

    Leftovers of a killed process are removed after an hour.
    """
    part = _shared_part(target)
    try:
        part.write_bytes(content)
        _into_place(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_shared_json(target: Path, content: Any) -> None:
    """`content` as readable JSON, see `write_shared`."""
    write_shared(target, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


@contextmanager
def shared_folder(target: Path) -> Iterator[Path]:
    """The same for a folder whose content does not depend on the process that creates it: the first whole one stays."""
    part = _shared_part(target)
    part.mkdir()
    try:
        yield part
        flush_tree(part)
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        _flush(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _shared_part(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(".*.shared"):
        with suppress(FileNotFoundError):
            if time.time() - stale.stat().st_mtime > ABANDONED:
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    return target.with_name(f".{secrets.token_hex(8)}.shared")


def free_bytes(folder: Path) -> int:
    """What may be written to the disk of `folder`, which is created: all but `LEFT` of its free space."""
    folder.mkdir(parents=True, exist_ok=True)
    return int(shutil.disk_usage(folder).free * (1 - LEFT))


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, keys in the order given."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def digest(content: bytes) -> str:
    """The first half of the SHA-256, in 32 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def json_digest(content: Any) -> str:
    """`digest` of any JSON value; the order of keys does not matter."""
    return digest(json.dumps(content, sort_keys=True).encode())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path) -> str:
    """The hash by which DVC knows a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
