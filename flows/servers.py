"""Prefect and MLflow as local servers: where they keep their data, how they are started and found."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tasks.common.errors import GraftError

PREFECT_PORT, MLFLOW_PORT = 4200, 5000


def prepare_prefect(root: Path) -> None:
    """Prefect's settings for this project, where the user has set none; before Prefect is imported."""
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def server(what: str, words: list[str], port: int, health: str, log: Path, root: Path) -> Iterator[str]:
    """A Python server process on 127.0.0.1 for the time of the block; one that already answers there is used as it is.

    Yields:
        Its address.

    Raises:
        GraftError: it did not start.
    """
    address = f"http://127.0.0.1:{port}"
    if answers(address + health):
        yield address
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        _wait(what, process, address + health, log)
        yield address
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and all that it started: MLflow's has helpers that outlive it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def prefect_server(root: Path, port: int = PREFECT_PORT) -> AbstractContextManager[str]:
    words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return server("Prefect", words, port, "/api/health", root / ".graft" / "prefect-server.log", root)


def mlflow_server(root: Path, uri: str, port: int = MLFLOW_PORT) -> AbstractContextManager[str]:
    words = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", uri, "--artifacts-destination", (root / "mlartifacts").as_uri()]
    return server("MLflow", words, port, "/health", root / ".graft" / "mlflow-server.log", root)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(what: str, process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers(url):
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise GraftError(f"the {what} server did not start", got=f"see {log}", todo="free its port, or name another one")
