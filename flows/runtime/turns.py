"""One process at a time, and a line that says which one the others wait for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from graft.tasks.common.core.errors import TransientError

from . import claims


@contextmanager
def turn(file: Path, what: str, patience: float, tell: Callable[[str], object]) -> Iterator[None]:
    """Holds a lock while the block runs. May be entered again in the same thread.

    Args:
        file: the lock; beside it lies a note about its holder.
        what: the work that only one process may do at a time, for the messages.
        patience: seconds to wait for another process.
        tell: gets one line if there is another one.

    Raises:
        TransientError: the other process takes longer than that.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(file, is_singleton=True), file.with_suffix(".json")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"waiting for {_holder(note, what)}, at most {_time(patience)}")
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise TransientError(
                f"{what} is still at work in this project",
                got=f"{_holder(note, what)}, after {_time(patience)}",
                todo="wait until it ends, or end it, then try again",
            ) from None
    try:
        if lock.lock_counter == 1:
            claims.claim(note, command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        yield
    finally:
        if lock.lock_counter == 1:
            note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path, what: str) -> str:
    """What is known about the holder, which may not have written its note yet."""
    known = claims.read_claim(note)
    if not known:
        return what
    host, pid, _ = known["process"].rsplit(":", 2)
    return f"{what}: `{' '.join(str(known.get('command')).split())[:100]}` (process {pid} on {host})"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:g} s"
