"""Artifacts of runs, fetched from MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.exceptions import MlflowException

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError

from .tracker import Tracker


@contextmanager
def fetched_artifacts(tracker: Tracker, run_id: str, *names: str) -> Iterator[Path | None]:
    """A folder with these artifacts of a run, while the block runs; None if the run does not have all of them.

    Raises:
        GraftError: MLflow cannot provide them.
    """
    tracker.paths.tmp.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=tracker.paths.tmp) as folder:
        try:
            logged = {file.path for file in tracker.client.list_artifacts(run_id)}
            if logged.issuperset(names):
                for name in names:
                    tracker.client.download_artifacts(run_id, name, folder)
        except (MlflowException, OSError) as error:
            raise GraftError(
                f"{', '.join(names)} of run {run_id} cannot be fetched from MLflow",
                got=redacted(str(error).splitlines()[0][:300]),
                todo="check that MLflow and its artifact store are reachable, and that the run was not deleted",
            ) from error
        yield Path(folder) if logged.issuperset(names) else None
