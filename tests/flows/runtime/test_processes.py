"""Which process started which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from projects import wait_for

from graft.flows.runtime import processes
from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import command_words


def test_a_process_is_found_by_number_and_age_only() -> None:
    me = psutil.Process()

    key = processes.key(me)
    assert processes.find(key) == me
    with pytest.raises(GraftError):
        processes.find(f"{key}0")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_the_clock_does_not_change_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes.key(psutil.Process())
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)

    assert processes.key(psutil.Process()) == before


def test_a_key_tells_whether_its_process_runs() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    key = processes.key(psutil.Process(child.pid))
    assert processes.key_runs(key) is True

    child.communicate(b"\n")

    assert processes.key_runs(key) is False
    assert processes.key_runs("another-machine:1:2.00") is None


def test_the_holder_is_the_flow_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.LEASH, processes.key(processes.me()))

    assert processes.holder() == psutil.Process()


@pytest.mark.parametrize("options", [["-m"], ["-P", "-m"]])
def test_an_interpreter_in_front_of_a_command_is_left_out(options: list[str]) -> None:
    child = subprocess.Popen([sys.executable, *options, "http.server", "--help"], stdout=subprocess.PIPE)
    words = command_words(psutil.Process(child.pid))
    child.communicate()

    assert words[:1] in (["http.server"], [])


STAGE = """
import subprocess, sys
from graft.flows.runtime import processes

endless = [sys.executable, "-c", "import signal; signal.pause()"]
worker = subprocess.Popen(endless)
recorder = subprocess.Popen(endless, start_new_session=True)
processes.follow_the_execution()
print(worker.pid, recorder.pid, flush=True)
worker.wait()
"""

DVC = """
import subprocess, sys

print(subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid, flush=True)
sys.stdin.read()
"""


def test_a_stage_ends_when_the_dvc_command_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "dvc").write_text(DVC, encoding="utf-8")
    dvc = subprocess.Popen(
        [sys.executable, str(tmp_path / "dvc"), STAGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert dvc.stdout is not None
    stage, worker, recorder = (psutil.Process(int(pid)) for line in (1, 2) for pid in dvc.stdout.readline().split())

    dvc.kill()
    dvc.wait()

    wait_for(lambda: not processes.runs(stage) and not processes.runs(worker), seconds=20)
    assert processes.runs(recorder), "it marks the stage as killed"
    recorder.kill()
