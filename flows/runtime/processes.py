"""Which process started which, and whether it still runs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress

import psutil

from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import LEASH, birth, command_words, process_key

key = process_key

ORPHANED = 60.0
"""Seconds that a run has to end after its worker has ended."""


def me() -> psutil.Process:
    return psutil.Process()


def find(key: str) -> psutil.Process:
    """The process of this key.

    Raises:
        GraftError: it has ended, or belongs to another machine.
    """
    host, pid, born = key.rsplit(":", 2)
    try:
        process = psutil.Process(int(pid))
        if host == socket.gethostname() and birth(process) == born:
            return process
    except psutil.NoSuchProcess:
        pass
    raise GraftError(f"process {pid} has ended")


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def holder() -> psutil.Process:
    """The process of the whole pipeline execution: the flow, or the DVC process above this one, or this one."""
    leashed = os.environ.get(LEASH)
    if leashed:
        return find(leashed)
    process = psutil.Process()
    for ancestor in process.parents():
        if command_words(ancestor)[:1] in (["dvc"], ["dvc.exe"]):
            return ancestor
    return process


def key_runs(text: str) -> bool | None:
    """Whether the process with this key is running; None if it belongs to another machine."""
    if text.rsplit(":", 2)[0] != socket.gethostname():
        return None
    try:
        return runs(find(text))
    except GraftError:
        return False


def end_with_the_worker(every: float = 1.0) -> None:
    """Ends this flow run when the worker or `graft schedule` process that started it ends: nobody could cancel it then.

    The run gets some time to report it.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(), every), name="worker", daemon=True).start()


def _end_with(parent: int, every: float) -> None:
    while os.getppid() == parent:  # an orphan gets another parent
        time.sleep(every)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHANED)
    os.kill(os.getpid(), signal.SIGKILL)


def follow_the_execution(every: float = 0.25) -> None:
    """Ends this stage, and what it has started, when the flow or the DVC command that started it ends.

    A flow that is cancelled kills its stages itself; this is for one that was killed outright. Without it the stage
    would work on, and overwrite the outputs of the next run.
    """
    leader = holder()
    if leader.pid != os.getpid():
        threading.Thread(target=_end_after, args=(leader, every), name="leash", daemon=True).start()


def _end_after(leader: psutil.Process, every: float) -> None:
    while runs(leader):
        time.sleep(every)
    if LEASH in os.environ:  # the group is the flow's own; DVC's is that of the terminal, or of a user's script
        os.killpg(os.getpgrp(), signal.SIGKILL)
    for child in me().children(recursive=True):
        with suppress(ProcessLookupError):
            if os.getsid(child.pid) == os.getsid(0):  # the recorder has a session of its own, and marks this stage
                os.kill(child.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
