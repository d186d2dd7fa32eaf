"""What Graft asks of DVC's processes: which command is at work in a project, and why one has failed."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, takewhile
from pathlib import Path

import psutil

from .addresses import redacted
from .common.core.errors import GraftError
from .environment import command_words

PATIENCE = 3600.0
"""Seconds for which a DVC command waits for another one of the same project."""

LOOK_EVERY = 0.2
"""Seconds between two looks at a process that is waited for."""

SLACK = 2.0
"""Seconds by which a file's time may lag behind a process's."""

NAMED = 100
"""Characters of a command that a message shows."""

NO_REASON = ("Having any troubles?", "Is your cache up to date?", "<https://")
"""Starts of the lines that DVC prints after an error, whatever the error is."""


def dvc_error(lines: Iterable[str]) -> str:
    """Why DVC has failed: its ERROR line with what belongs to it, or else its last line; without secrets."""
    told = [line.rstrip() for line in lines if not line.startswith(NO_REASON)]
    for place, line in enumerate(told):
        if line.startswith("ERROR: "):
            rest = takewhile(lambda more: more and not more.startswith(("ERROR: ", "WARNING: ")), told[place + 1 :])
            return redacted("\n  ".join([line.removeprefix("ERROR: "), *map(str.strip, rest)])[:2000])
    return redacted(next((line for line in reversed(told) if line.strip()), "no message"))


def wait_for_dvc(root: Path, tell: Callable[[str], object], patience: float = PATIENCE) -> bool:
    """Waits until no other DVC command is at work in a project; whether there was one.

    `dvc --wait-for-lock` waits for a command that holds the whole project, not for one that runs a stage. A
    command that started this process is not waited for.

    Args:
        tell: gets a line for each command that is waited for.

    Raises:
        GraftError: the other command takes longer than `patience` seconds.
    """
    deadline, waited = time.monotonic() + patience, False
    while (other := _other(root)) is not None:
        waited, words = True, " ".join(" ".join(command_words(other)).split())  # in one line
        name = f"`{words[:NAMED] or 'dvc'}` (process {other.pid})"
        tell(f"waiting for {name}, at most {patience / 60:.0f} minutes")
        while _runs(other):
            if time.monotonic() > deadline:
                raise GraftError(
                    "another DVC command is still at work in this project",
                    got=f"{name}, after {patience / 60:.0f} minutes",
                    todo="wait until it ends, or end it, then try again",
                )
            time.sleep(LOOK_EVERY)
    return waited


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _other(root: Path) -> psutil.Process | None:
    """A process that runs a DVC command in the project, other than this one and those above it."""
    own = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    for pid in [*_users(root / ".dvc" / "tmp" / "rwlock"), *_holder(root / ".dvc" / "tmp" / "lock")]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if pid not in own and _runs(process):
                return process
    return None


def _holder(lock: Path) -> list[int]:
    """The process that holds DVC's lock of the whole project. Its number stays in the file, so the lock is tried."""
    with suppress(OSError, ValueError), lock.open(encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return [int(file.read().split()[0])]
    return []


def _users(rwlock: Path) -> list[int]:
    """The processes that use files of the project, by DVC's own record.

    DVC takes the entry of a killed command for one at work if its number now belongs to another process, which began
    after the entry was written or is another command, or if its parent has not noticed its end. Those are removed.
    """
    try:
        kept, written = json.loads(rwlock.read_text(encoding="utf-8")), rwlock.stat().st_mtime
    except (OSError, ValueError):  # there is none, or DVC is writing it
        return []
    entries = [*kept.get("write", {}).values(), *chain(*kept.get("read", {}).values())]
    commands = {entry["pid"]: str(entry.get("cmd", "")) for entry in entries}
    stale = {pid for pid, command in commands.items() if _is_stale(pid, command, written)}
    if stale:
        _remove_entries(rwlock, stale)
    return sorted(commands.keys() - stale)


def _is_stale(pid: int, command: str, written: float) -> bool:
    """Whether the process of this number cannot be at work for an entry. DVC removes entries without a process."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(pid)
        began_later = process.create_time() > written + SLACK
        return bool(began_later or process.status() == psutil.STATUS_ZOMBIE or _is_other(process, command))
    return False


def _is_other(process: psutil.Process, command: str) -> bool:
    """Whether a process runs another command than this one, as DVC noted its words: by the last of them, because an
    interpreter may come before the first. The file's time cannot tell, since other commands write to it too."""
    words, running = command.split(), " ".join(process.cmdline()).split()
    return len(words) > 1 and bool(running) and running[-1] != words[-1]


def _remove_entries(rwlock: Path, pids: set[int]) -> None:
    """As DVC changes the file: while holding the lock beside it, or not at all."""
    with suppress(OSError, ValueError), rwlock.with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept = json.loads(rwlock.read_text(encoding="utf-8"))
        write = {path: entry for path, entry in kept.get("write", {}).items() if entry["pid"] not in pids}
        read = {
            path: [one for one in entries if one["pid"] not in pids] for path, entries in kept.get("read", {}).items()
        }
        rwlock.write_text(json.dumps({"write": write, "read": read}), encoding="utf-8")
