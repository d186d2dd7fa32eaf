"""Which process started which."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from flows import processes
from tasks.common.errors import GraftError


def test_a_process_is_found_by_number_and_age_only() -> None:
    me = psutil.Process()

    assert processes.find(me.pid, me.create_time()) == me
    with pytest.raises(GraftError):
        processes.find(me.pid, me.create_time() - 100)


def test_a_key_tells_whether_its_process_runs() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    key = processes.key(psutil.Process(child.pid))
    assert processes.key_runs(key) is True

    child.communicate(b"\n")

    assert processes.key_runs(key) is False
    assert processes.key_runs("another-machine:1:2.00") is None


def test_the_holder_is_the_flow_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.LEASH, processes.leash(processes.me()))

    assert processes.holder() == psutil.Process()


def test_an_interpreter_in_front_of_a_command_is_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-m", "http.server", "--help"], stdout=subprocess.PIPE)
    words = processes.command_words(psutil.Process(child.pid))
    child.communicate()

    assert words[:1] in (["http.server"], [])
