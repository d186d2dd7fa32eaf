"""Jobs of a Ray cluster: submitted through its job server, watched and stopped."""

from __future__ import annotations

import io
import logging
import os
import secrets
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError, TransientError

ADDRESS = "http://127.0.0.1:8265"
"""Where Ray's job server listens unless told otherwise."""

LEFT_OUT = ("__pycache__", "sample")
"""Folders of the package that no node needs."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1", "DO_NOT_TRACK": "1"}

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers that say which package is uploaded."""

PATIENCE = 30.0
"""Seconds that the job server may be silent."""

LINES = 15
"""Of a failed job's log, in the error."""

STARTING = "No available agent"
"""In the answer of a job server whose cluster has just been started."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    client: Any
    name: str

    def status(self) -> str:
        """`PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `STOPPED`.

        Raises:
            TransientError: the job server does not answer.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return str(self.client.get_job_status(self.name).value)
            except Exception as error:
                if time.monotonic() > deadline:
                    raise _silent(self.client.get_address(), error) from error
                time.sleep(1.0)

    def last_words(self) -> str:
        """The end of the job's log; empty if there is none."""
        with suppress(Exception):
            lines = [line for line in self.client.get_job_logs(self.name).splitlines() if line.strip()]
            return "\n           ".join(lines[-LINES:])
        return ""

    def stop(self, seconds: float = 8.0) -> None:
        """Ends the job and all its processes; waits until it has ended, for some seconds. Never raises."""
        with suppress(Exception):
            if str(self.client.get_job_status(self.name).value) in ENDED:
                return
            self.client.stop_job(self.name)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and str(self.client.get_job_status(self.name).value) not in ENDED:
                time.sleep(0.1)


def connect(address: str | None) -> Any:
    """A client of the job server.

    Raises:
        GraftError: Ray is not installed here.
        TransientError: the server does not answer.
    """
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0"})
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise GraftError(
            "`compute.engine: ray` needs Ray, which is not installed",
            got=str(error),
            todo="install Graft with its extra `ray`, or set `compute.engine: local`",
        ) from error
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address or ADDRESS)
    except Exception as error:
        raise _silent(address or ADDRESS, error) from error


def job_name(kind: str) -> str:
    """A new one that says when it was made."""
    return f"graft-{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


@contextmanager
def submitted(client: Any, name: str, module: str, variables: Mapping[str, str]) -> Iterator[Job]:
    """A job that runs a module of this very package in the cluster; it is stopped when the block ends.

    Args:
        module: the driver, run by `python -m`.
        variables: of the environment of all its processes. Everybody who sees the cluster's pages can read them.

    Raises:
        TransientError: the job server does not answer.
    """
    with tempfile.TemporaryDirectory() as place:
        code = Path(place) / "graft.zip"
        code.write_bytes(package_code())
        _submit(
            client,
            entrypoint=f"python -m {module}",
            submission_id=name,
            runtime_env={"working_dir": str(code), "env_vars": {**QUIET, **variables}},
            metadata={"graft": name},
        )
    job = Job(client, name)
    try:
        yield job
    finally:
        job.stop()


def _submit(client: Any, **job: Any) -> None:
    """Tried again while the cluster says that it is starting."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.submit_job(**job)
        except Exception as error:
            if STARTING not in str(error) or time.monotonic() > deadline:
                raise _silent(client.get_address(), error) from error
            time.sleep(1.0)
        else:
            return


def package_code() -> bytes:
    """This package as a ZIP file; the same files give the same bytes, which Ray uploads once."""
    top = Path(__file__).parents[2]
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(_files(top)):
            entry = zipfile.ZipInfo(f"graft/{file.relative_to(top).as_posix()}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return found.getvalue()


def _files(top: Path) -> Iterator[Path]:
    """Of the package; in a repository, its parts are links."""
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        yield from (Path(parent) / name for name in names if not name.endswith(".pyc"))


def _silent(address: str, error: Exception) -> TransientError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TransientError(
        "Ray's job server does not answer",
        got=f"{address}: {reason}",
        todo="start the cluster, correct `compute.address`, or set `compute.engine: local`",
    )
