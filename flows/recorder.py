"""A process that keeps MLflow loaded for all stages of one pipeline execution.

MLflow takes two seconds to import and to open its store, in each of six stages. So the first stage of an execution
starts this process; it answers the stages one after another and ends with the process that started them (`dvc repro`,
or the flow). It also notices a stage that was killed, and says so in MLflow.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from tasks.common.errors import GraftError
from tasks.common.files import read_json, write_json
from tasks.common.paths import Paths

from . import processes

if TYPE_CHECKING:
    from .stage_record import StageRecord

PATIENCE = 120.0
"""Seconds within which the recorder must have opened MLflow's store; a large one may be migrating."""


class Recorder:
    """A stage's line to the recorder; used as a context, whose failure is recorded as the stage's."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._holder = processes.holder()
        self._desk = _desk(root, self._holder)
        self._started = None if self._desk.is_file() else _start(root, self._holder)

    def __enter__(self) -> Recorder:
        self._line = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            try:
                self("fail", f"{type(error).__name__}: {error}")
            except GraftError as lost:
                error.add_note(str(lost))
        self._line.close()

    def __call__(self, method: str, *values: Any) -> Any:
        """The result of a method of `StageRecord`.

        Raises:
            GraftError: what the method raised, or that the recorder is gone.
        """
        try:
            self._line.send((method, values))
            done, result = self._line.recv()
        except (EOFError, OSError) as error:
            raise self._lost(str(error)) from error
        if not done:
            raise GraftError(result)
        return result

    def _connect(self) -> Connection:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._desk.is_file():
                desk = read_json(self._desk)
                try:
                    return Client(desk["address"], authkey=bytes.fromhex(desk["key"]))
                except (ConnectionError, FileNotFoundError):
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


def _desk(root: Path, holder: psutil.Process) -> Path:
    key = f"{processes.key(holder)} {root.resolve()} {os.environ.get('MLFLOW_TRACKING_URI', '')}"
    return Paths(root).state / "recorders" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _log(root: Path) -> Path:
    return Paths(root).state / "recorder.log"


def _start(root: Path, holder: psutil.Process) -> subprocess.Popen[bytes]:
    log = _log(root)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.recorder", str(holder.pid), f"{holder.create_time():.2f}"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def serve(root: Path, holder: psutil.Process) -> None:
    """Answers stages until the holder is gone."""
    desk = _desk(root, holder)
    _clear_desks(desk.parent)
    key = secrets.token_bytes(32)
    with Listener(authkey=key) as listener:
        before = os.umask(0o077)  # the key is nobody else's; the store and the models are as the user wants them
        write_json(desk, {"address": listener.address, "key": key.hex(), "pid": os.getpid()})
        os.umask(before)
        threading.Thread(target=_end_with, args=(holder, desk), daemon=True).start()
        from .stage_record import StageRecord  # after the desk is set up: a stage may queue while MLflow is imported

        while True:
            with listener.accept() as line:
                _answer(line, StageRecord(root, holder))


def _clear_desks(folder: Path) -> None:
    """Takes away what recorders left that were killed."""
    for desk in folder.glob("*.json"):
        if not psutil.pid_exists(read_json(desk)["pid"]):
            desk.unlink(missing_ok=True)


_busy = threading.Lock()


def _answer(line: Connection, record: StageRecord) -> None:
    while True:
        try:
            method, values = line.recv()
        except (EOFError, ConnectionError):
            with _busy:
                record.abandon()
            return
        with _busy:
            try:
                reply = (True, getattr(record, method)(*values))
            except Exception as error:  # noqa: BLE001  (whatever it is, the stage is told)
                reply = (False, str(error) or type(error).__name__)
        line.send(reply)


def _end_with(holder: psutil.Process, desk: Path) -> None:
    while processes.runs(holder):
        time.sleep(0.5)
    time.sleep(1.0)  # a stage that was killed with it is noticed first
    with _busy:
        desk.unlink(missing_ok=True)
        os._exit(0)


if __name__ == "__main__":
    serve(Path.cwd(), processes.find(int(sys.argv[1]), float(sys.argv[2])))
