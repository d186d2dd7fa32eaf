"""Commands that a notebook starts."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
from projects import Project, hold, release, wait_for

from graft.flows.python.commands import _error


def test_the_first_error_of_graft_is_the_error_with_all_its_lines() -> None:
    printed = [
        "Running stage 'head':",
        "error: a is wrong",
        "  got:     b",
        "  do:      c",
        "",
        "ERROR: failed to reproduce",
    ]

    error = _error(("repro",), 255, printed)

    assert str(error) == "a is wrong\n  got:     b\n  do:      c"
    assert error.code == 255


def test_without_one_it_is_dvcs() -> None:
    error = _error(("repro", "heads"), 255, ["ERROR: 'heads' does not exist", "Having any troubles? Ask"])

    assert str(error) == "`graft repro heads` failed\n  got:     'heads' does not exist"


def test_an_interrupt_ends_the_command_and_everything_that_it_has_started(project: Project) -> None:
    other = hold(project.root)
    program = f"import graft; graft.open({str(project.root)!r}).repro('head')"
    notebook = subprocess.Popen(
        [sys.executable, "-c", program], env=project.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert notebook.stdout is not None
        while b"waiting for" not in notebook.stdout.readline():
            assert notebook.poll() is None
        started = psutil.Process(notebook.pid).children(recursive=True)
        notebook.send_signal(signal.SIGINT)
        _, said = notebook.communicate(timeout=60)
    finally:
        release(other)

    assert started
    assert b"KeyboardInterrupt" in said
    assert wait_for(lambda: not any(process.is_running() for process in started))
