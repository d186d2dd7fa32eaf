"""Where MLflow's store is, known without MLflow, whose import takes a second; and how the project's own is made."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def own_store(root: Path) -> Path | None:
    """The SQLite file inside the project; None where MLFLOW_TRACKING_URI names another store."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else root.resolve() / "mlflow.db"


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file inside the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def has_store(root: Path) -> bool:
    """Whether there is something to ask, so that to ask does not make it."""
    own = own_store(root)
    return own is None or own.is_file()


@contextmanager
def store_made_meanwhile(root: Path) -> Iterator[None]:
    """Has MLflow make its database beside the block: the first stage of all would otherwise wait seconds for it.

    Only for the project's own store. That it cannot be made is not the block's failure; the first stage will say so.
    """
    if has_store(root):
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.tracking.store"],
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
