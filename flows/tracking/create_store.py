"""Creates the project's MLflow store beside other work: `python -m graft.flows.tracking.create_store`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .store import has_store


@contextmanager
def store_made_meanwhile(root: Path) -> Iterator[None]:
    """Creates MLflow's database in another process while the block runs: else the first stage waits seconds for it.

    Only for the project's own store. If it cannot be created, the block does not fail: the first stage reports it.
    """
    if has_store(root):
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "graft.flows.tracking.create_store"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C must not leave half a database
    )
    try:
        yield
    finally:
        process.wait()


if __name__ == "__main__":
    from .tracker import Tracker

    Tracker(Path.cwd())
