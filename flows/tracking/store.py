"""Where MLflow's store is, known without MLflow, whose import takes a second."""

from __future__ import annotations

import os
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
