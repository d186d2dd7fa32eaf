"""Claims: small files that say which process uses something, so that what a killed process left is known as such.

A claim is JSON with the process's key under `process`, and whatever else its reader needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from graft.tasks.common.core.files import read_json, write_json

from . import processes

PATTERN = "*.json"


def claim(file: Path, process: psutil.Process | None = None, **facts: Any) -> None:
    """Writes a claim of a process, by default of this one."""
    write_json(file, {"process": processes.key(process or processes.me()), **facts})


@contextmanager
def claimed(file: Path, **facts: Any) -> Iterator[None]:
    """A claim of this process for the time of the block."""
    claim(file, **facts)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def read_claim(file: Path) -> dict[str, Any]:
    """What a claim says; empty if there is none, or it is damaged."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("process"), str) else {}


def holds(content: dict[str, Any]) -> bool | None:
    """Whether the process of a claim runs; None if it is another machine's. A damaged claim holds nothing."""
    return processes.key_runs(content["process"]) if content else False


def held(folder: Path) -> bool:
    """Whether a process of this machine has a claim in this folder."""
    return any(holds(read_claim(file)) for file in folder.glob(PATTERN))


def clear_dead(folder: Path) -> list[Path]:
    """Removes the claims of processes of this machine that have ended, and damaged ones; returns which.

    What was claimed should be removed first where it must not be left: see `dead`.
    """
    found = dead(folder)
    for file in found:
        file.unlink(missing_ok=True)
    return found


def dead(folder: Path) -> list[Path]:
    """The claims of processes of this machine that have ended, and damaged ones."""
    return [file for file in sorted(folder.glob(PATTERN)) if holds(read_claim(file)) is False and file.exists()]
