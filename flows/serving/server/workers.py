"""Several server processes that share a port, and the parent that keeps them running."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory

from prometheus_client.multiprocess import mark_process_dead

from graft.tasks.common.core.errors import GraftError

from .metrics import SHARED
from .process import bind, log_to_stderr, say_where
from .settings import Settings

LOG = logging.getLogger("graft.serve")

COMMAND = [sys.executable, "-P", "-m", "graft.flows.serving.server.worker"]

STEADY = 60.0
"""Seconds after which a process that ends is started again at once; before, each failure doubles the wait."""

LONGEST = 30.0
LATE = 10.0
"""Seconds that a process gets to end beyond `--drain`."""


@dataclass
class Worker:
    """A process, started again when it ends."""

    settings: Settings
    folder: str
    process: subprocess.Popen[str] = field(init=False)
    started: float = 0.0
    due: float = 0.0
    failures: int = 0

    def start(self) -> None:
        environment = {**os.environ, SHARED: self.folder}
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdin is not None
        self.process.stdin.write(self.settings.to_json() + "\n")
        self.process.stdin.flush()
        self.started, self.due = time.monotonic(), 0.0

    def look(self) -> None:
        """Starts it again if it has ended, after a wait."""
        now = time.monotonic()
        if self.due:
            if now >= self.due:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        mark_process_dead(self.process.pid, self.folder)  # type: ignore[no-untyped-call]
        self.failures = 0 if now - self.started > STEADY else self.failures + 1
        wait = min(2.0**self.failures / 4, LONGEST)
        LOG.error("process %d ended with %d, a new one starts in %.1f s", self.process.pid, code, wait)
        self.due = now + wait

    @property
    def refused(self) -> bool:
        """It ended with a user's error."""
        return not self.due and self.process.poll() == 2


def supervise(settings: Settings) -> None:
    """Runs `settings.workers` processes until SIGTERM or SIGINT.

    Raises:
        GraftError: the port is in use, or the model cannot be loaded at the start.
    """
    bind(settings.host, settings.port).close()  # another server's port could be shared unnoticed
    reserved = bind(settings.host, settings.port, shared=True)
    settings = replace(settings, port=reserved.getsockname()[1], load_first=True)
    log_to_stderr(settings)
    say_where(settings.host, settings.port)
    ended = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: ended.set())
    with reserved, TemporaryDirectory(prefix="graft-metrics-") as folder:
        workers = [Worker(settings, folder) for _ in range(settings.workers)]
        for worker in workers:
            worker.start()
        try:
            _watch(workers, ended)
        finally:
            _end(workers, settings.drain)


def _watch(workers: list[Worker], ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(0.2):
        for worker in workers:
            if worker.refused and worker.started - began < 1.0 and worker.failures == 0:
                raise GraftError("a server process cannot start", todo="read its error above")
            worker.look()


def _end(workers: list[Worker], drain: float) -> None:
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    until = time.monotonic() + drain + LATE
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            LOG.error("process %d does not end and is killed", process.pid)
            process.kill()
            process.wait()
