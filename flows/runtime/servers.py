"""Prefect and MLflow as local servers: where they keep data, and how they are started, found and protected."""

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

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.environment import LOOPBACK, no_proxy_for_this_machine

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
"""Never through a proxy, which cannot reach this machine's ports."""


def prepare_prefect(root: Path) -> None:
    """Sets Prefect's defaults for this project, except those that you have set. Call it before Prefect is imported.

    With PREFECT_API_URL you use your own server, and log in to it your own way.
    """
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        # in memory they would be lost with the server, and what a crashed run held would stay locked for ever
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
    """A Python server process on 127.0.0.1 while the block runs; if the project's server is running already, that one.

    Args:
        what: `Prefect` or `MLflow`.
        words: its command, to which the port is added.
        port: the preferred one; if it is in use, the next free one.

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
    """The server, once it answers; it ends with the block."""
    no_proxy_for_this_machine()
    log = root / ".graft" / f"{what.lower()}-server.log"
    process = _start(words, root, log, settings)
    try:
        _wait(what, process, address + HEALTH[what], log)
        yield process
    finally:
        _end(process)


def _settings(what: str, address: str, root: Path) -> dict[str, str]:
    """Settings of Prefect's server: its own address, its login, and which web pages may call it.

    By default it answers everyone, and every web page in your browser. MLflow's server checks host names by itself.
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
    """The address of the project's own server; empty if none runs. A port alone may belong to another project."""
    note = claims.read_claim(_note(what, root))
    own = note.get("root") == str(root.resolve()) and claims.holds(note)
    return str(note["address"]) if own and answers(note["address"] + HEALTH[what]) else ""


def use_own_prefect(root: Path) -> None:
    """Makes Prefect use the project's server if one runs: two servers must not write to one database."""
    address = own_address("Prefect", root)
    if address:
        os.environ.setdefault("PREFECT_API_URL", f"{address}/api")


def prefect_for_this_process(root: Path) -> None:
    """Makes Prefect use the server in PREFECT_API_URL, or the project's running one, or a new one for this process.

    Prefect starts one by itself too, but leaves it running if this process is killed. Call it before Prefect is
    imported.
    """
    use_own_prefect(root)
    if os.environ.get("PREFECT_API_URL"):
        return
    stack = contextlib.ExitStack()
    atexit.register(stack.close)  # after Prefect's own handlers, which still send logs
    port = _free_from(0)
    address = f"http://127.0.0.1:{port}"
    # Links to the run's pages work later, with `graft ui`.
    os.environ.setdefault("PREFECT_UI_URL", f"http://127.0.0.1:{PREFECT_PORT}")
    words = [*TEMPORARY, "--port", str(port)]
    stack.enter_context(_running("Prefect", words, address, root, {**_settings("Prefect", address, root), **NO_PAGES}))
    os.environ["PREFECT_API_URL"] = f"{address}/api"


def _note(what: str, root: Path) -> Path:
    return Paths(root).state / "servers" / f"{what.lower()}.json"


def _free_from(port: int) -> int:
    """The first free port from this one on; any port for 0."""
    for candidate in range(port, min(port + 100, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as servers do: a port that was just released is free
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise GraftError("no free port", got=f"{port} and the hundred above it are in use", todo="choose another port")


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
    """Ends the server and everything that it started: MLflow's helpers would outlive it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def prefect_server(root: Path, port: int = PREFECT_PORT) -> AbstractContextManager[str]:
    return server("Prefect", ["prefect", "server", "start", "--host", "127.0.0.1"], port, root)


def mlflow_server(root: Path, uri: str, port: int = MLFLOW_PORT) -> AbstractContextManager[str]:
    """MLflow's pages; by default without the job processes (1 GB of memory), which Graft does not use."""
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
        todo="read its last lines; if its port is in use, choose another",
    )
