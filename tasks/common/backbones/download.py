"""Fetching a file by HTTP; what an interruption leaves in `<target>.part` is where the next try goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import requests

from ..core.errors import WeightsError, WeightsUnreachable
from ..core.files import write_json
from ..core.progress import progress, say

MB = 1_000_000
TIMEOUT = (10, 60)
"""Seconds: to connect, and without a byte."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that a server has.

    Attributes:
        url: where it is.
        what: what the user would call it.
        algorithm, digest: `md5` or `sha256`, and the hash or its beginning; empty if it is not known.
        ways: what else the user can do to have the file.
        headers: to send with the request.
    """

    url: str
    what: str
    ways: str
    algorithm: str = "sha256"
    digest: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def download(remote: Remote, target: Path) -> bool:
    """Fetches `remote` as `target`, which is whole or absent. Whether this call did it: another process may have.

    Raises:
        WeightsUnreachable: the server does not answer, or broke off; what has come is kept.
        WeightsError: the server refuses, the file is another one, or there is no room for it.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part, remote) as file:
            fetch = not target.is_file()
            if fetch:
                _fill(file, remote, target, part)
                _check(part, remote)
                part.replace(target)
                _note(part).unlink(missing_ok=True)
    except requests.RequestException as error:
        raise _unfetched(remote, part, error) from error
    except OSError as error:
        raise WeightsError(
            f"{remote.what} cannot be written to {target.parent}",
            got=error.strerror or str(error),
            allowed="a folder that can be written, on a disk with room",
            todo=f"make room there or correct its permissions, and run again; or {remote.ways}",
        ) from error
    return fetch


@contextmanager
def _alone(part: Path, remote: Remote) -> Iterator[BinaryIO]:
    """`part`, open for appending and locked, so that two processes never write into it at once."""
    while True:
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{remote.what}: another process is fetching it; waiting")
                fcntl.flock(file, fcntl.LOCK_EX)
            if part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno())):
                try:
                    yield file
                finally:
                    _drop_empty(part)
                return
            # the process that held it before has renamed or removed it


def _drop_empty(part: Path) -> None:
    if part.exists() and not part.stat().st_size:
        part.unlink()
        _note(part).unlink(missing_ok=True)


def _fill(file: BinaryIO, remote: Remote, target: Path, part: Path) -> None:
    """Completes the part: downloads the rest if the server can send it, otherwise the whole file."""
    have = file.seek(0, os.SEEK_END)
    known = _known(part, remote) if have else {}
    if known and have == known["size"]:
        return
    headers: dict[str, str | None] = {"Accept-Encoding": "identity", **remote.headers}
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"] or None}  # requests leaves None out
    with requests.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if known and answer.status_code in (206, 416) and answer.headers.get("Content-Range") != _rest(have, known):
            _start_over(file, part)  # of another file, though the server was asked for the rest of the same
            _fill(file, remote, target, part)
            return
        answer.raise_for_status()
        if not known or answer.status_code == 200:
            have = _start_over(file, part)
            _remember(part, remote, answer)
        length = answer.headers.get("Content-Length")
        size = have + int(length) if length else None
        _announce(remote, target, have, size)
        _append(file, remote, answer, have, size)


def _rest(have: int, known: Mapping[str, Any]) -> str:
    """The header of a response with the rest of the same file."""
    return f"bytes {have}-{known['size'] - 1}/{known['size']}"


def _start_over(file: BinaryIO, part: Path) -> int:
    _note(part).unlink(missing_ok=True)
    if file.seek(0, os.SEEK_END):
        file.truncate(0)
    return 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remember(part: Path, remote: Remote, answer: requests.Response) -> None:
    """What the next try must know to go on: nothing, where it could not tell this file from another."""
    etag, length = answer.headers.get("ETag", ""), answer.headers.get("Content-Length")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    if length and (validator or remote.digest):
        write_json(_note(part), {"url": remote.url, "validator": validator, "size": int(length)})


def _known(part: Path, remote: Remote) -> dict[str, Any]:
    with suppress(FileNotFoundError, ValueError):
        known: dict[str, Any] = json.loads(_note(part).read_text(encoding="utf-8"))
        if known["url"] == remote.url:
            return known
    return {}


def _announce(remote: Remote, target: Path, have: int, size: int | None) -> None:
    """Says what comes from where, and whether there is room for it.

    Raises:
        WeightsError: there is not.
    """
    amount = f"{size / MB:,.1f} MB" if size is not None else "of unknown size"
    going_on = f"going on after {have / MB:,.1f} of " if have else ""
    say(f"fetching {remote.what}: {going_on}{amount}, from {remote.url} to {target}")
    free = shutil.disk_usage(target.parent).free
    if size is not None and size - have > free:
        raise WeightsError(
            f"{remote.what}: no room in {target.parent}",
            got=f"{free / MB:,.1f} MB free",
            allowed=f"{(size - have) / MB:,.1f} MB, the size of {'the rest of ' if have else ''}{target.name}",
            todo=f"make room there, and run again; or {remote.ways}",
        )


def _append(file: BinaryIO, remote: Remote, answer: requests.Response, have: int, size: int | None) -> None:
    """Raises:
    requests.RequestException: the connection broke.
    """
    came = 0
    with progress(f"fetching {remote.what}", math.ceil(((size or have) - have) / MB), "MB") as bar:
        for block in answer.iter_content(1 << 18):
            file.write(block)
            came += len(block)
            bar.add(math.ceil(came / MB) - bar.done)
    file.flush()
    if size is not None and have + came != size:
        raise requests.ConnectionError(f"{have + came:,} of {size:,} bytes came")


def _check(part: Path, remote: Remote) -> None:
    """Raises:
    WeightsError: the part has another hash; it is removed.
    """
    if not remote.digest:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(remote.algorithm, usedforsecurity=False)).hexdigest()
    if not found.startswith(remote.digest):
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise WeightsError(
            f"{remote.what}: what came from {remote.url} is not the expected file, and was removed",
            got=f"{remote.algorithm} {found}",
            allowed=f"{remote.algorithm} {remote.digest}",
            todo=f"run again; if it stays so, the file was changed there or on the way: {remote.ways}",
        )


def _unfetched(remote: Remote, part: Path, error: requests.RequestException) -> WeightsError:
    """A server that breaks down may answer the next time; one that refuses will not."""
    answer = error.response
    kept = part.stat().st_size if _note(part).exists() else 0
    refused = answer is not None and answer.status_code < 500
    return (WeightsError if refused else WeightsUnreachable)(
        f"{remote.what}: not on this machine, and could not be fetched from {remote.url}",
        got=re.sub(r"\s+", " ", str(error) or type(error).__name__)[:300],
        allowed="a server that answers, or the file on this machine",
        todo=(f"run again: it goes on after {kept / MB:,.1f} MB; or " if kept else "") + remote.ways,
    )
