"""The files of an inbox that are complete, and their hashes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.files import read_json, write_shared_json
from graft.tasks.preprocess.scan import hidden
from graft.tasks.preprocess.walk import Listing, open_regular

UNLABELLED = "unlabelled"
"""The folder of an inbox whose images go to the pool, see flows/labelling."""

UNDER_WAY = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp")
"""Suffixes of files whose copy or download is not finished."""


def unsettled(listing: Listing, settle_seconds: float) -> Iterator[tuple[str, str]]:
    now = time.time()
    for name, file in listing.files.items():
        if hidden(name):
            continue
        try:
            age = now - file.stat().st_mtime
        except OSError as error:
            yield name, f"it cannot be examined: {error.strerror}"
            continue
        if name.lower().endswith(UNDER_WAY) or name.endswith("~"):
            yield name, "its name says that it is still being written"
        elif age < settle_seconds:
            yield name, f"changed {max(age, 0):.0f} s ago, less than `retrain.settle_seconds`"


def digests(inbox: Path, listing: Listing, names: list[str], memory: Path, waiting: dict[str, str]) -> dict[str, str]:
    """md5 of each readable file; the others wait. A file with the same size and time as at the last look is not read
    again."""
    kept = _kept(memory)
    stamps = {name: stamp for name in names if (stamp := _stamp(listing.files[name]))}
    fresh = [name for name in names if kept.get(str(inbox / name), ["", ""])[0] != stamps.get(name, "gone")]
    with ThreadPoolExecutor(cores()) as pool:
        hashed = dict(zip(fresh, pool.map(lambda name: _md5(listing.files[name], inbox), fresh), strict=True))
    waiting |= {name: f"it cannot be read: {why}" for name, (why, _) in hashed.items() if why}
    found = {name: hashed[name][1] if name in hashed else kept[str(inbox / name)][1] for name in names}
    found = {name: digest for name, digest in found.items() if name not in waiting}
    if listing.files:  # an inbox whose disk is not mounted is empty too
        here = {str(inbox / name) for name in listing.files}
        remembered = {path: entry for path, entry in kept.items() if path in here}
        remembered |= {str(inbox / name): [stamps[name], found[name]] for name in found if name in stamps}
        if remembered != kept:
            write_shared_json(memory, remembered)
    return found


def _kept(memory: Path) -> dict[str, list[str]]:
    """File -> [stamp, md5], for the files that were in the inbox at the last look."""
    try:
        return dict(read_json(memory))
    except (OSError, ValueError, TypeError):  # none yet, or truncated
        return {}


def _stamp(file: Path) -> str:
    """Size and time of the file; empty if it no longer exists."""
    try:
        seen = file.stat()
    except OSError:
        return ""
    return f"{seen.st_size}:{seen.st_mtime_ns}"


def _md5(file: Path, inbox: Path) -> tuple[str, str]:
    """Why the file cannot be read (empty if it can), and its md5."""
    try:
        with open_regular(file, inbox) as opened:
            return "", hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        return error.strerror or str(error), ""
