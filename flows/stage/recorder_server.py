"""A process that keeps MLflow loaded for all stages of one pipeline execution.

MLflow takes two seconds to import and to open its store, in each of seven stages. So the first stage of an execution
starts this process; it answers the stages one after another and ends with the process that started them (`dvc repro`,
or the flow). It also marks a stage that was killed as such in MLflow.
"""

from __future__ import annotations

import gc
import os
import secrets
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import psutil

from graft.tasks.common.core.errors import may_pass
from graft.tasks.environment import trial

from ..runtime import claims, processes
from .handshake import address_of, admit, listener
from .recorder import desk_of

if TYPE_CHECKING:
    from .recorder_session import StageRecord


def serve(root: Path, holder: psutil.Process) -> None:
    """Answers stages until the holder ends."""
    desk = desk_of(root, holder)
    claims.clear_dead(desk.parent)
    key, lines = secrets.token_bytes(32), SimpleQueue[Connection]()
    with listener() as door:
        before = os.umask(0o077)  # only for the key: the store and the models get the user's own mode
        claims.claim(desk, address=address_of(door), key=key.hex())
        os.umask(before)
        threading.Thread(target=_end_with, args=(root, holder, desk), daemon=True).start()
        threading.Thread(target=_accept, args=(door, key, lines), daemon=True).start()
        record = _load()  # after the desk is set up: a stage may queue while MLflow is imported
        while True:
            with lines.get() as line:
                _answer(line, record(root, holder))


def _load() -> type[StageRecord]:
    """Imports MLflow; without garbage collection this is a fifth faster."""
    gc.disable()
    try:
        from .recorder_session import StageRecord
    finally:
        gc.enable()
    return StageRecord


def _accept(door: Listener, key: bytes, lines: SimpleQueue[Connection]) -> None:
    """Takes calls, each in a thread of its own until it has shown the key: a silent caller holds up nobody."""
    while True:
        try:
            line = door.accept()
        except OSError as error:  # it hung up at once
            _note(error)
            time.sleep(0.02)
            continue
        threading.Thread(target=_let_in, args=(line, key, lines), daemon=True).start()


def _let_in(line: Connection, key: bytes, lines: SimpleQueue[Connection]) -> None:
    try:
        admit(line, key)
    except (AuthenticationError, EOFError, OSError) as error:
        _note(error)
        line.close()
    else:
        lines.put(line)


def _note(error: Exception) -> None:
    """Writes a line to the recorder's log, its standard error."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


_busy = threading.Lock()


def _answer(line: Connection, record: StageRecord) -> None:
    """Serves one stage until it hangs up; however a stage ends, the recorder goes on."""
    try:
        while True:
            method, values = line.recv()
            line.send(_reply(record, method, values))
    except (EOFError, OSError):
        _hang_up(record)


def _reply(record: StageRecord, method: str, values: tuple[Any, ...]) -> tuple[str, Any]:
    """`done` and the result, or the kind of an error (`transient`, `failed`) and its message."""
    from ..tracking.patience import server_may_recover

    with _busy:
        try:
            return "done", getattr(record, method)(*values)
        except Exception as error:  # noqa: BLE001  (every error is reported to the stage)
            kind = "transient" if may_pass(error) or server_may_recover(error) else "failed"
            return kind, str(error) or type(error).__name__


def _hang_up(record: StageRecord) -> None:
    with _busy:
        try:
            record.abandon()
        except Exception as error:  # noqa: BLE001  (if MLflow does not answer, the next stage reports it)
            _note(error)


def _end_with(root: Path, holder: psutil.Process, desk: Path) -> None:
    key = processes.key(holder)  # while it lives
    while processes.runs(holder):
        time.sleep(0.5)
    time.sleep(1.0)  # a stage that was killed with it is noticed first
    with _busy:
        try:
            _settle(root, key)
        except Exception as error:  # noqa: BLE001  (no stage is left to report it to)
            _note(error)
        desk.unlink(missing_ok=True)
        os._exit(0)


def _settle(root: Path, key: str) -> None:
    """Records what is known only when the execution has ended: DVC writes dvc.lock after the last stage.

    Also registers a package that DVC has restored from its cache without running the stage; not that of a trial.
    """
    from ..registry.registering import ensure_registered
    from ..tracking.run_table import await_pictures
    from ..tracking.tracker import Tracker

    await_pictures()
    tracker = Tracker(root)
    parent = tracker.settle(key)
    if not trial():
        ensure_registered(tracker, parent)


if __name__ == "__main__":
    serve(Path.cwd(), processes.find(sys.argv[1]))
