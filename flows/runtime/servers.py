"""Prefect and MLflow as local servers: where they keep their data, how they are started, found and protected."""

from __future__ import annotations

import atexit
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

from tasks.common.core.errors import GraftError
from tasks.common.core.paths import Paths
from tasks.environment import LOOPBACK, no_proxy_for_this_machine

from . import child_server, claims
from .login import server_login, use_login

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
BEAT = 30
"""Seconds between two heartbeats of a flow run; Prefect allows no fewer."""

HEALTH = {"Prefect": "/api/health", "MLflow": "/health"}

TEMPORARY = [
    *("uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--host", "127.0.0.1", "--log-level", "error", "--lifespan", "on"),
]
NO_PAGES = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""The command and variables with which Prefect itself starts a temporary server."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy knows nothing of this machine's ports."""


def prepare_prefect(root: Path) -> None:
    """Prefect's settings for this project, where you have set none; before Prefect is imported.

    With PREFECT_API_URL the server is yours, and so is how to log in to it.
    """
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        # in memory they are lost with the server, and what a dead run held would be held for ever
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT),
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("PREFECT_API_URL") or _names_own_server(os.environ["PREFECT_API_URL"], root):
        use_login(root)


def _names_own_server(url: str, root: Path) -> bool:
    own = own_address("Prefect", root)
    return bool(own) and url.rstrip("/").replace("//localhost:", "//127.0.0.1:") == f"{own}/api"


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
    address = f"http://127.0.0.1:{port}"
    words = [*words, "--port", str(port)]
    with _running(what, words, address, root, _settings(what, address, root)) as process:
        try:
            claims.claim(_note(what, root), psutil.Process(process.pid), address=address, root=str(root.resolve()))
            yield address
        finally:
            _note(what, root).unlink(missing_ok=True)


@contextmanager
def _running(
    what: str, words: list[str], address: str, root: Path, settings: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The server once it answers; it is ended with the block."""
    no_proxy_for_this_machine()
    log = root / ".graft" / f"{what.lower()}-server.log"
    process = _start(words, root, log, settings)
    try:
        _wait(what, process, address + HEALTH[what], log)
        yield process
    finally:
        _end(process)


def _settings(what: str, address: str, root: Path) -> dict[str, str]:
    """What Prefect's server needs to know: where its pages find it, and whom it may answer.

    By default it would answer everyone, and let every web page in your browser ask. MLflow's checks names by itself.
    """
    if what != "Prefect":
        return {}
    origins = ",".join(address.replace("127.0.0.1", host) for host in LOOPBACK)
    return {
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_API_AUTH_STRING": server_login(root),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": os.environ.get("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", origins),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": os.environ.get("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "true"),
    }


def own_address(what: str, root: Path) -> str:
    """Where the project's own server answers, empty if it runs none: whatever has a port may be another project's."""
    note = claims.read_claim(_note(what, root))
    own = note.get("root") == str(root.resolve()) and claims.holds(note)
    return str(note["address"]) if own and answers(note["address"] + HEALTH[what]) else ""


def use_own_prefect(root: Path) -> None:
    """Has Prefect use the project's server, if one runs: two servers must not write to one database."""
    address = own_address("Prefect", root)
    if address:
        os.environ.setdefault("PREFECT_API_URL", f"{address}/api")


def prefect_for_this_process(root: Path) -> None:
    """Has Prefect use the server that PREFECT_API_URL names, or the project's own that runs, or one for this process.

    Prefect would start one too, but leave it running if this process is killed. Call it before Prefect is imported.
    """
    use_own_prefect(root)
    if os.environ.get("PREFECT_API_URL"):
        return
    stack = contextlib.ExitStack()
    atexit.register(stack.close)  # after Prefect's own handlers, which still send logs
    port = _free_from(0)
    address = f"http://127.0.0.1:{port}"
    # The pages of a run are seen later, with `graft ui`.
    os.environ.setdefault("PREFECT_UI_URL", f"http://127.0.0.1:{PREFECT_PORT}")
    words = [*TEMPORARY, "--port", str(port)]
    stack.enter_context(_running("Prefect", words, address, root, {**_settings("Prefect", address, root), **NO_PAGES}))
    os.environ["PREFECT_API_URL"] = f"{address}/api"


def _note(what: str, root: Path) -> Path:
    return Paths(root).state / "servers" / f"{what.lower()}.json"


def _free_from(port: int) -> int:
    """The first free one from this on; any for 0."""
    for candidate in range(port, min(port + 100, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that ended is no hindrance
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise GraftError("no free port", got=f"{port} and the hundred above it are in use", todo="name another port")


def _start(words: list[str], root: Path, log: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-P", child_server.__file__, str(os.getpid()), *words],
            cwd=root,
            env={**os.environ, **settings},
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
        with _direct.open(url, timeout=2) as reply:
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
    raise GraftError(
        f"the {what} server did not start",
        got=f"see {log}",
        todo="read its last lines; if its port is in use, name another",
    )
