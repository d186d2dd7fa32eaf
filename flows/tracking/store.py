"""The address of MLflow's store, without importing MLflow, which takes a second."""

from __future__ import annotations

import os
from pathlib import Path


def own_store(root: Path) -> Path | None:
    """The SQLite file inside the project; None where MLFLOW_TRACKING_URI names another store."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else root.resolve() / "mlflow.db"


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file inside the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def sqlite_file(root: Path) -> Path | None:
    """The file of the store in use; None for a server or another kind of database."""
    uri = tracking_uri(root)
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return root / path if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def has_store(root: Path) -> bool:
    """Whether the store exists, so that a question does not create it."""
    own = own_store(root)
    return own is None or has_content(own)


def has_content(file: Path) -> bool:
    """Whether a file exists and is not empty: SQLite leaves an empty one when it is interrupted at once."""
    return file.is_file() and file.stat().st_size > 0


def run_page(experiment_id: str, run_id: str) -> str:
    """The place of a run in MLflow's pages, in the view for model training: the default is the one for GenAI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
