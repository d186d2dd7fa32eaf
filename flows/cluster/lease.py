"""A job's lease: its submitter renews it, and the job ends when it has not been renewed for some time.

So a job ends also when the machine that submitted it has lost its power or its network. The driver judges by its own
clock: it looks whether the lease has changed, not what time it names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from graft.tasks.common.core.errors import GraftError

from .exchange import Folder

NAME = "lease"
"""The file in the job's folder."""

OFTEN = 5
"""Renewals within the time that a lease lasts."""


@contextmanager
def renewed(folder: Folder, seconds: float) -> Iterator[None]:
    """Renews the lease in the job's folder as long as the block lasts."""
    ended = threading.Event()

    def renew() -> None:
        number = 0
        while not ended.wait(seconds / OFTEN if number else 0):
            number += 1
            with suppress(GraftError, OSError):  # the next renewal may succeed
                folder.put(NAME, str(number).encode())

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def watch(folder: Folder, seconds: float, lapsed: Callable[[], None]) -> None:
    """Starts a thread that calls `lapsed` when the lease has been silent for so long."""

    def look() -> None:
        known, changed = b"", time.monotonic()
        while time.monotonic() - changed < seconds:
            time.sleep(seconds / OFTEN)
            found: bytes | None = None
            with suppress(GraftError, OSError):
                found = folder.get(NAME)
            if found is not None and found != known:
                known, changed = found, time.monotonic()
        lapsed()

    threading.Thread(target=look, name="lease", daemon=True).start()
