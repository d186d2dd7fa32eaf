"""A stage's connection to the recorder process, which keeps MLflow loaded (see recorder_server)."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from graft.tasks.common.core.errors import GraftError, TransientError
from graft.tasks.common.core.paths import Paths

from ..runtime import claims, processes
from .handshake import call

PATIENCE = 120.0
"""Seconds within which the recorder must have started to listen."""


UNUSABLE = (OSError, EOFError, AuthenticationError, ValueError, KeyError)
"""What a desk raises whose recorder has ended: no file or socket, a damaged file, another program at its address."""


class Recorder:
    """A stage's connection to the recorder, used as a context manager: its failure is recorded as the stage's."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._holder = processes.holder()
        self._desk = desk_of(root, self._holder)
        self._started = None if self._desk.is_file() else _start(root, self._holder)
        self._opening: threading.Thread | None = None
        self._runs: dict[str, str] = {}
        self._refusal: GraftError | None = None

    def __enter__(self) -> Recorder:
        self._line = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait()
        try:
            if self._refusal is not None:
                raise self._refusal from None
            if error is not None:
                self._fail(error)
        finally:
            self._line.close()

    def _fail(self, error: BaseException) -> None:
        try:
            self("fail", f"{type(error).__name__}: {error}")
        except GraftError as lost:
            error.add_note(str(lost))

    def begin(self, *values: Any) -> None:
        """Opens the stage's run while the stage works; if it cannot be opened, the work is interrupted."""
        self._opening = threading.Thread(target=self._open, args=values, daemon=True)
        self._opening.start()

    def _open(self, *values: Any) -> None:
        try:
            self._runs = self("start", *values)
        except GraftError as error:
            self._refusal = error
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it, whatever it waits for

    def runs(self) -> dict[str, str]:
        """The runs that `begin` opened; waits for them.

        Raises:
            GraftError: they could not be opened.
        """
        self._wait()
        if self._refusal is not None:
            raise self._refusal
        return self._runs

    def _wait(self) -> None:
        if self._opening is not None:
            self._opening.join()

    def __call__(self, method: str, *values: Any) -> Any:
        """The result of a method of `StageRecord`.

        Raises:
            TransientError: the method raised an error that a retry may fix.
            GraftError: it raised any other error, or the recorder has ended.
        """
        try:
            self._line.send((method, values))
            kind, result = self._line.recv()
        except (EOFError, OSError) as error:
            raise self._lost(str(error)) from error
        if kind != "done":
            raise (TransientError if kind == "transient" else GraftError)(result)
        return result

    def _connect(self) -> Connection:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._desk.is_file():
                try:
                    return _call(claims.read_claim(self._desk))
                except UNUSABLE:
                    # It ended without clearing its desk: killed.
                    self._desk.unlink(missing_ok=True)
                    self._started = _start(self._root, self._holder)
            elif self._started is not None and self._started.poll() is not None:
                break
            time.sleep(0.02)
        raise self._lost("it did not start")

    def _lost(self, reason: str) -> GraftError:
        log = _log(self._root)
        lines = log.read_text(encoding="utf-8").strip().splitlines() if log.is_file() else []
        return GraftError(
            "MLflow's recorder does not answer",
            got=lines[-1] if lines else reason,
            todo=f"see {log.relative_to(self._root)}; run the stage again",
        )


def _call(desk: dict[str, Any]) -> Connection:
    """JSON has made a list of a host and its port."""
    address = desk["address"]
    return call(address if isinstance(address, str) else tuple(address), bytes.fromhex(desk["key"]))


def recorder_runs(root: Path) -> bool:
    """Whether a recorder runs on this machine for any execution of the project."""
    return claims.held(_desks(root))


def _desks(root: Path) -> Path:
    return Paths(root).state / "recorders"


def desk_of(root: Path, holder: psutil.Process) -> Path:
    """The file in which the recorder of an execution says where it answers."""
    key = f"{processes.key(holder)} {root.resolve()} {os.environ.get('MLFLOW_TRACKING_URI', '')}"
    return _desks(root) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _log(root: Path) -> Path:
    return Paths(root).state / "recorder.log"


def _start(root: Path, holder: psutil.Process) -> subprocess.Popen[bytes]:
    log = _log(root)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "graft.flows.stage.recorder_server", processes.key(holder)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
