"""Commands of `graft` in a process of their own: a notebook's threads, event loop and plots stay as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import IO

from graft.tasks.common.core.errors import GraftError
from graft.tasks.dvc_process import dvc_error

PATIENCE = 30.0
"""Seconds that a command has to end after an interrupt."""


class CommandFailed(GraftError):
    """A command of `graft` failed: the error that it printed.

    Attributes:
        code: its exit code; 4 for a run that was cancelled.
    """

    def __init__(self, what: str, *, got: object = None, code: int) -> None:
        super().__init__(what, got=got)
        self.code = code


def run_command(root: Path, *words: str) -> None:
    """Runs `graft WORDS` to its end and prints what it prints, line by line.

    Raises:
        CommandFailed: its exit code is not 0; with the text that it printed.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "graft.flows.cli", *words],
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        lines = _printed(process.stdout)
    except BaseException:
        _end(process)
        raise
    if process.wait():
        raise _error(words, process.returncode, lines)


def _printed(stream: IO[str]) -> list[str]:
    lines = []
    for line in stream:
        print(line, end="", flush=True)
        lines.append(line.rstrip("\n"))
    return lines


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the command as Ctrl-C does, which lets DVC keep what is finished; in the end by force."""
    for sign, seconds in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _error(words: tuple[str, ...], code: int, lines: list[str]) -> CommandFailed:
    """With the first error that Graft has printed, or DVC's, or the last line."""
    start = next((place for place, line in enumerate(lines) if line.startswith("error: ")), None)
    if start is None:
        return CommandFailed(f"`graft {' '.join(words)}` failed", got=dvc_error(lines), code=code)
    further = takewhile(lambda line: line.startswith("  "), lines[start + 1 :])
    return CommandFailed("\n".join([lines[start].removeprefix("error: "), *further]), code=code)
