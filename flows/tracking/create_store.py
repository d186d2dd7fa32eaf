"""Creates the project's MLflow store beside other work: `python -m flows.tracking.create_store`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .store import has_store


@contextmanager
def store_made_meanwhile(root: Path) -> Iterator[None]:
    """Has MLflow make its database beside the block: the first stage of all would otherwise wait seconds for it.

    Only for the project's own store. That it cannot be made is not the block's failure; the first stage will say so.
    """
    if has_store(root):
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.tracking.create_store"],
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


def make(root: Path) -> None:
    """Makes the store, or fails at once: MLflow by itself tries for minutes to open a file that cannot be opened."""
    sqlite3.connect(root / "mlflow.db").close()
    from .tracker import Tracker

    Tracker(root)


if __name__ == "__main__":
    make(Path.cwd())
