"""One server process: the model, the threads, and uvicorn."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.solvers.blas import one_thread_a_product

from .app import build
from .connection import Connection
from .desk import Desk
from .follower import Follower
from .guard import HEADERS, Guard
from .journal import Journal
from .metrics import Metrics
from .service import Service
from .settings import MAX_CONNECTIONS, MB, Settings

LOG = logging.getLogger("graft.serve")

LAST_REQUESTS = 0.5
"""Seconds after the port is closed in which open connections may still send what they were about to send."""

BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""The numbers that malloc.h of glibc gives to these settings."""

SPARE = 2
"""Decoding threads beyond the cores: an image that is decoded in a process of its own only waits."""

SWITCH = 0.001
"""Seconds after which a thread gives up Python's lock: the loop must not wait for others."""


def serve(settings: Settings, bound: socket.socket, leash: Callable[[Callable[[], None]], None] | None = None) -> None:
    """Answers until SIGTERM or SIGINT.

    Args:
        leash: is given what ends the server, for another reason to end.

    Raises:
        GraftError: the model cannot be loaded.
    """
    log_to_stderr(settings)
    sys.setswitchinterval(SWITCH)
    allow_files()
    return_memory()
    metrics = Metrics()
    desk = Desk(settings.queue, metrics)
    journal = Journal(settings, metrics) if settings.log else None
    workers = ThreadPoolExecutor(settings.streams + SPARE, thread_name_prefix="decode")
    with one_thread_a_product(), workers as decoders:  # threads of a product would compete with those of the network
        server = Server(_config(settings, desk, metrics, journal), desk)
        follower = Follower(settings, desk, metrics, decoders, server.end)
        try:
            follower.start()
            if leash is not None:
                leash(server.end)
            server.run(sockets=[bound])
        finally:
            follower.stop()
            decoders.shutdown(wait=False, cancel_futures=True)
            if journal is not None:
                journal.close()
    if follower.error is not None:
        raise follower.error
    LOG.info("stopped")


def _config(settings: Settings, desk: Desk, metrics: Metrics, journal: Journal | None) -> uvicorn.Config:
    service = Service(settings, desk, metrics, journal)
    return uvicorn.Config(
        Guard(build(service), settings, desk, metrics),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        h11_max_incomplete_event_size=HEADERS,
    )


class QuietServer(uvicorn.Server):
    """Ends with exit code 0 after a signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's raises the signal again at the end, which would be the exit code."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


class Server(QuietServer):
    """Answers first what has been accepted."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._desk.draining = True
        LOG.info("stopping: no new connections, accepted requests are answered")
        for server in self.servers:
            server.close()
        if self._desk.current is not None:
            await asyncio.sleep(LAST_REQUESTS)
        await super().shutdown(sockets)


def say_where(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    print(f"http://{shown}:{port}  Ctrl-C stops", flush=True)


def allow_files() -> None:
    """Raises the limit of open files as far as this user may: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 512
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def return_memory() -> None:
    """Makes glibc give large buffers back at once, and share its pools between threads.

    By itself it raises the size from which it does so with each buffer that is freed, and keeps a pool for each thread:
    with pictures of 30 MB and a model that is swapped, the process grew by a third in six minutes. Another C library
    has no such settings, and is left as it is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, MB // 2)
        libc.mallopt(M_TRIM_THRESHOLD, 8 * MB)
        libc.mallopt(M_ARENA_MAX, 2)


def log_to_stderr(settings: Settings) -> None:
    """Starts, swaps and stops, one line each; requests only with `--access-log`."""
    handler = logging.StreamHandler(sys.stderr)
    number = f" {os.getpid()}" if settings.workers > 1 else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s{number} %(levelname)s %(message)s"))
    loggers: dict[str, int] = {
        "graft.serve": logging.INFO,
        "uvicorn.error": logging.ERROR,
        "uvicorn.access": logging.INFO if settings.access_log else logging.CRITICAL,
    }
    for name, level in loggers.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens to nothing yet.

    Args:
        shared: with other processes of this user, by SO_REUSEPORT.

    Raises:
        GraftError: the address cannot be used.
    """
    try:
        found: list[Any] = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError as error:
        raise GraftError(
            f"the server cannot listen on {host} port {port}",
            got=error.strerror or str(error),
            todo="choose another --port or --host; with --port 0 the system chooses a free port",
        ) from error
    return bound
