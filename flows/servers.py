"""Prefect and MLflow as local servers: where they keep their data, how they are started and found."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil

from tasks.common.errors import GraftError
from tasks.common.files import read_json, write_json
from tasks.common.paths import Paths

from . import processes

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
BEAT = 30
"""Seconds between two heartbeats of a flow run; Prefect allows no fewer."""

PAGES: dict[str, dict[str, str]] = {"Prefect": {"PREFECT_UI_API_URL": "/api"}, "MLflow": {}}
"""The variables that tell a server's own pages where it answers, which they take for the usual port else."""

HEALTH = {"Prefect": "/api/health", "MLflow": "/health"}


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
        # in memory they are lost with the server, and what a dead run held would be held for ever
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT),
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def server(what: str, words: list[str], port: int, root: Path) -> Iterator[str]:
    """A Python server process on 127.0.0.1 for the time of the block; the project's own that runs is used as it is.

    Args:
        what: `Prefect` or `MLflow`.
        words: its command, to which the port is added.
        port: the wish; if something else has it, the next free one is taken.

    Yields:
        Its address.

    Raises:
        GraftError: it did not start.
    """
    known = own_address(what, root)
    if known:
        yield known
        return
    port = _free_from(port)
    address, log = f"http://127.0.0.1:{port}", root / ".graft" / f"{what.lower()}-server.log"
    process = _start(
        [*words, "--port", str(port)], root, log, {name: address + path for name, path in PAGES[what].items()}
    )
    try:
        key = processes.key(psutil.Process(process.pid))
        _wait(what, process, address + HEALTH[what], log)
        write_json(_note(what, root), {"address": address, "process": key, "root": str(root.resolve())})
        yield address
    finally:
        _note(what, root).unlink(missing_ok=True)
        _end(process)


def own_address(what: str, root: Path) -> str:
    """Where the project's own server answers, empty if it runs none: whatever has a port may be another project's."""
    try:
        note = read_json(_note(what, root))
    except (OSError, ValueError):
        return ""
    own = note["root"] == str(root.resolve()) and processes.key_runs(note["process"])
    return str(note["address"]) if own and answers(note["address"] + HEALTH[what]) else ""


def use_own_prefect(root: Path) -> None:
    """Has Prefect use the project's server, if one runs: two servers must not write to one database."""
    address = own_address("Prefect", root)
    if address:
        os.environ.setdefault("PREFECT_API_URL", f"{address}/api")


def _note(what: str, root: Path) -> Path:
    return Paths(root).state / "servers" / f"{what.lower()}.json"


def _free_from(port: int) -> int:
    for candidate in range(port, min(port + 100, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that ended is no hindrance
            probe.bind(("127.0.0.1", candidate))
            return candidate
    raise GraftError("no free port", got=f"{port} and the hundred above it are in use", todo="name another port")


def _start(words: list[str], root: Path, log: Path, pages: dict[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=root,
            env={**os.environ, **pages},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and all that it started: MLflow's has helpers that outlive it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def prefect_server(root: Path, port: int = PREFECT_PORT) -> AbstractContextManager[str]:
    return server("Prefect", ["prefect", "server", "start", "--host", "127.0.0.1"], port, root)


def mlflow_server(root: Path, uri: str, port: int = MLFLOW_PORT) -> AbstractContextManager[str]:
    """MLflow's pages; unless asked for, without the processes (1 GB) that wait for jobs which Graft never gives."""
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    words = ["mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    words += ["--backend-store-uri", uri, "--artifacts-destination", (root / "mlartifacts").as_uri()]
    return server("MLflow", words, port, root)


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
