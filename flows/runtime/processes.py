"""Which process started which, and whether it still runs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

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


def follow_the_flow(every: float = 1.0) -> None:
    """If a flow started this process, ends its whole process group when the flow's process ends.

    A flow that is cancelled kills the group itself; this is for a flow that was killed outright.
    """
    if LEASH in os.environ:
        threading.Thread(target=_watch, args=(holder(), every), name="leash", daemon=True).start()


def _watch(flow: psutil.Process, every: float) -> None:
    while runs(flow):
        time.sleep(every)
    os.killpg(os.getpgrp(), signal.SIGKILL)
