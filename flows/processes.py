"""Which process started which, and whether it still runs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import psutil

from tasks.common.errors import GraftError

LEASH = "GRAFT_LEASH"
"""The variable that names the flow's process: its number and the time at which it was created."""


def me() -> psutil.Process:
    return psutil.Process()


def leash(process: psutil.Process) -> str:
    """The value of `LEASH` for processes that must end with this one."""
    return f"{process.pid}:{process.create_time():.2f}"


def find(pid: int, created: float) -> psutil.Process:
    """The process of this number and age.

    Raises:
        GraftError: it is gone.
    """
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 0.02:
            return process
    except psutil.NoSuchProcess:
        pass
    raise GraftError(f"the process {pid} is gone")


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def holder() -> psutil.Process:
    """The process of the whole pipeline execution: the flow, or the DVC process above this one, or this one."""
    leashed = os.environ.get(LEASH)
    if leashed:
        pid, created = leashed.split(":")
        return find(int(pid), float(created))
    process = psutil.Process()
    for ancestor in process.parents():
        if command_words(ancestor)[:1] in (["dvc"], ["dvc.exe"]):
            return ancestor
    return process


def command_words(process: psutil.Process) -> list[str]:
    """The command line, without the interpreter that runs it and its `-m`."""
    try:
        words = list(process.cmdline())
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return []
    if words and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
    return [Path(words[0]).name, *words[1:]] if words else []


def key(process: psutil.Process) -> str:
    """Names a process on this machine for all time: a number alone comes again."""
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def key_runs(text: str) -> bool | None:
    """Whether the process of this key runs; None for one of another machine."""
    host, pid, created = text.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        return runs(find(int(pid), float(created)))
    except GraftError:
        return False


def follow_the_flow(every: float = 1.0) -> None:
    """If a flow started this process, ends its whole process group as soon as the flow's process is gone.

    The flow kills the group itself when it is cancelled; this is for a flow that was killed outright.
    """
    if LEASH in os.environ:
        threading.Thread(target=_watch, args=(holder(), every), name="leash", daemon=True).start()


def _watch(flow: psutil.Process, every: float) -> None:
    while runs(flow):
        time.sleep(every)
    os.killpg(os.getpgrp(), signal.SIGKILL)
