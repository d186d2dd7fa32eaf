"""DVC commands wait for each other, and a failed one gives its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from projects import hold, release, wait_for

from graft.tasks.common.core.errors import GraftError
from graft.tasks.dvc_process import dvc_error, wait_for_dvc


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its input is closed."""
    process = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: psutil.Process(process.pid).cmdline()[1:] == list(words))  # until then it is the parent's copy
    try:
        yield process
    finally:
        release(process)


def record(root: Path, pid: int) -> Path:
    """DVC's record of a command that uses data/raw."""
    file = root / ".dvc" / "tmp" / "rwlock"
    entry = {"pid": pid, "cmd": "dvc repro"}
    file.write_text(json.dumps({"write": {"/data/raw": entry}, "read": {"/code": [entry]}}), encoding="utf-8")
    return file


def test_a_project_without_another_command_is_not_waited_for(root: Path) -> None:
    lines: list[str] = []

    assert not wait_for_dvc(root, lines.append)
    record(root, os.getppid())
    assert not wait_for_dvc(root, lines.append), "of a command that started this process"
    assert lines == []


def test_a_command_that_runs_a_stage_is_waited_for_by_name(root: Path) -> None:
    lines: list[str] = []
    with running("-c", "input()", "repro") as other:
        record(root, other.pid)

        def tell(line: str) -> None:
            lines.append(line)
            release(other)

        assert wait_for_dvc(root, tell)
    (line,) = lines
    assert f"repro` (process {other.pid}), at most 60 minutes" in line


def test_a_command_that_holds_the_whole_project_is_waited_for(root: Path) -> None:
    other = hold(root)
    with pytest.raises(GraftError, match=rf"still at work in this project[\s\S]*process {other.pid}"):
        wait_for_dvc(root, lambda _: None, patience=0.1)

    release(other)

    assert not wait_for_dvc(root, lambda _: None), "its number is still in the file"


def test_the_entry_of_a_killed_command_whose_number_another_process_got_is_removed(root: Path) -> None:
    with running("-c", "input()", "repro") as other:
        file = record(root, other.pid)
        hour_ago = time.time() - 3600
        os.utime(file, (hour_ago, hour_ago))

        assert not wait_for_dvc(root, lambda _: None)

    assert json.loads(file.read_text(encoding="utf-8")) == {"write": {}, "read": {"/code": []}}


def test_an_entry_that_other_commands_have_kept_is_removed_if_its_number_is_another_commands(root: Path) -> None:
    with running("-c", "input()") as other:
        file = record(root, other.pid)

        assert not wait_for_dvc(root, lambda _: None)

    assert json.loads(file.read_text(encoding="utf-8"))["write"] == {}


def test_the_entry_of_a_killed_command_whose_parent_has_not_noticed_is_removed(root: Path) -> None:
    with running("-c", "input()", "repro") as other:
        file = record(root, other.pid)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie

        assert not wait_for_dvc(root, lambda _: None)

    assert json.loads(file.read_text(encoding="utf-8"))["write"] == {}


def test_the_record_of_a_command_that_has_ended_is_empty(root: Path) -> None:
    (root / ".dvc" / "tmp" / "rwlock").write_text("{}", encoding="utf-8")

    assert not wait_for_dvc(root, lambda _: None)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "a line\nERROR: unexpected error - https://user:secret@host/x\n\nHaving any troubles? Hit us up\n",
            "unexpected error - https://host/x",
        ),
        (
            "ERROR: failed to pull data from the cloud - Checkout failed for following targets:\ndata/raw\n"
            "Is your cache up to date?\n<https://error.dvc.org/missing-files>\n",
            "failed to pull data from the cloud - Checkout failed for following targets:\n  data/raw",
        ),
        ("Killed\n\n", "Killed"),
        ("", "no message"),
    ],
)
def test_the_reason_is_dvcs_error_line_without_secrets(output: str, reason: str) -> None:
    assert dvc_error(output.splitlines()) == reason
