"""A process that keeps MLflow loaded for all stages of one pipeline execution.

MLflow takes two seconds to import and to open its store, in each of seven stages. So the first stage of an execution
starts this process; it answers the stages one after another and ends with the process that started them (`dvc repro`,
or the flow). It also notices a stage that was killed, and says so in MLflow.
"""

from __future__ import annotations

import gc
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from tasks.common.core.errors import GraftError, TransientError, may_pass
from tasks.common.core.files import read_json, write_json
from tasks.common.core.paths import Paths

from ..runtime import processes

if TYPE_CHECKING:
    from .recorder_session import StageRecord

PATIENCE = 120.0
"""Seconds within which the recorder must have started to listen."""

UNUSABLE = (OSError, EOFError, AuthenticationError, ValueError, KeyError)
"""What a desk gives whose recorder is gone: no file or socket, a half-written file, another one at its address."""


class Recorder:
    """A stage's line to the recorder; used as a context, whose failure is recorded as the stage's."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._holder = processes.holder()
        self._desk = _desk(root, self._holder)
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
        """Has the stage's run opened while the stage works; that it cannot be opened interrupts the work."""
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
            TransientError: what the method raised, if it may pass.
            GraftError: any other error that it raised, or that the recorder is gone.
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
                    desk = read_json(self._desk)
                    return Client(desk["address"], authkey=bytes.fromhex(desk["key"]))
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
            [sys.executable, "-m", "flows.stage.recorder", processes.key(holder)],
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
        socket = Path(listener.address) if isinstance(listener.address, str) else None
        threading.Thread(target=_end_with, args=(root, holder, desk, socket), daemon=True).start()
        record = _load()  # after the desk is set up: a stage may queue while MLflow is imported
        while True:
            line = _accept(listener)
            if line is not None:
                with line:
                    _answer(line, record(root, holder))


def _load() -> type[StageRecord]:
    """MLflow; a fifth faster when the garbage collector does not look through it meanwhile."""
    gc.disable()
    try:
        from .recorder_session import StageRecord
    finally:
        gc.enable()
    return StageRecord


def _accept(listener: Listener) -> Connection | None:
    """The next stage's line; None for a caller that has not got the key, or that hung up at once."""
    try:
        return listener.accept()
    except (AuthenticationError, EOFError, OSError) as error:
        _note(error)
        time.sleep(0.02)
        return None


def _note(error: Exception) -> None:
    """A line in the recorder's log, which is what its standard error is."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _clear_desks(folder: Path) -> None:
    """Takes away what recorders left that were killed."""
    for desk in folder.glob("*.json"):
        try:
            deserted = not psutil.pid_exists(read_json(desk)["pid"])
        except UNUSABLE:
            deserted = True
        if deserted:
            desk.unlink(missing_ok=True)


_busy = threading.Lock()


def _answer(line: Connection, record: StageRecord) -> None:
    """Serves one stage until it hangs up, in whatever way; no stage's end is the recorder's."""
    try:
        while True:
            method, values = line.recv()
            line.send(_reply(record, method, values))
    except (EOFError, OSError):
        _hang_up(record)


def _reply(record: StageRecord, method: str, values: tuple[Any, ...]) -> tuple[str, Any]:
    """`done` and the result, or of what kind an error was (`transient`, `failed`) and its words."""
    from ..tracking.tracker import server_may_recover

    with _busy:
        try:
            return "done", getattr(record, method)(*values)
        except Exception as error:  # noqa: BLE001  (whatever it is, the stage is told)
            kind = "transient" if may_pass(error) or server_may_recover(error) else "failed"
            return kind, str(error) or type(error).__name__


def _hang_up(record: StageRecord) -> None:
    with _busy:
        try:
            record.abandon()
        except Exception as error:  # noqa: BLE001  (MLflow may be gone; the next stage is told if it still is)
            _note(error)


def _end_with(root: Path, holder: psutil.Process, desk: Path, socket: Path | None) -> None:
    key = processes.key(holder)  # while it lives
    while processes.runs(holder):
        time.sleep(0.5)
    time.sleep(1.0)  # a stage that was killed with it is noticed first
    with _busy:
        try:
            _settle(root, key)
        except Exception as error:  # noqa: BLE001  (nobody is left to be told)
            _note(error)
        desk.unlink(missing_ok=True)
        if socket is not None and socket.parent.name.startswith("pymp-"):
            shutil.rmtree(socket.parent, ignore_errors=True)  # multiprocessing made it, and is not asked any more
        os._exit(0)


def _settle(root: Path, key: str) -> None:
    """What is known only when the execution has ended: DVC writes dvc.lock after the last stage.

    DVC may have brought the package from its cache, without its stage.
    """
    from ..registry.models import ensure_registered
    from ..tracking.run_table import await_pictures
    from ..tracking.tracker import Tracker

    await_pictures()
    tracker = Tracker(root)
    ensure_registered(tracker, tracker.settle(key))


if __name__ == "__main__":
    serve(Path.cwd(), processes.find(sys.argv[1]))
