"""The process that keeps MLflow loaded: it serves one execution, notices killed stages, and ends with its holder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path

import psutil
import pytest
from projects import Project, Rerun, wait_for

from graft.flows.runtime import claims, processes
from graft.flows.stage.recorder import Recorder


@pytest.fixture
def execution(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of a project in which a process stands for a pipeline execution."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setenv(processes.LEASH, processes.key(psutil.Process(holder.pid)))
    yield project.root
    holder.communicate(b"\n")
    wait_for(lambda: not recorders(project), seconds=20)


def begin(line: Recorder) -> str:
    return str(line("start", "head", {}, processes.key(psutil.Process()), 0.0, {})["run_id"])


def desk_of(root: Path) -> Path:
    (desk,) = (root / ".graft" / "recorders").glob("*.json")
    return desk


def recorders(project: Project) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if "graft.flows.stage.recorder_server" in (process.info["cmdline"] or [])
        and process.info["cwd"] == str(project.root)
    ]


def test_it_ends_with_the_execution_that_it_served(rerun: Rerun) -> None:
    wait_for(lambda: not recorders(rerun), seconds=20)
    assert list(rerun.recorders().iterdir()) == []


def test_what_a_killed_recorder_left_is_cleared_away(rerun: Rerun) -> None:
    assert not Path(rerun.deserted).exists()


def test_a_killed_stage_is_marked_as_killed(project: Project) -> None:
    stage = project.own_code() / "tasks" / "preprocess" / "stage.py"
    endless = "def run(*_: object) -> Record:\n    import threading\n    threading.Event().wait()\n\n\ndef _run"
    stage.write_text(stage.read_text(encoding="utf-8").replace("def run", endless, 1), encoding="utf-8")
    process = project.start_repro()
    wait_for(lambda: any(run.info.status == "RUNNING" and "graft.stage" in run.data.tags for run in project.runs()))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    wait_for(lambda: not recorders(project), seconds=20)
    assert "RUNNING" not in {run.info.status for run in project.runs()}
    assert "KILLED" in {run.info.status for run in project.runs()}


def test_a_recorder_that_was_killed_is_replaced(project: Project) -> None:
    project.set("head", l2_max=0.5)
    process = project.start_repro("evaluate")
    wait_for(
        lambda: [run for run in project.runs() if run.info.run_name == "head" and run.info.status == "FINISHED"][1:]
    )
    for desk in project.recorders().glob("*.json"):
        processes.find(json.loads(desk.read_text(encoding="utf-8"))["process"]).kill()
    process.wait()

    again = project.dvc("repro", "evaluate", check=False)
    assert again.returncode == 0
    assert project.repro("evaluate") == []


def test_callers_that_break_off_or_lack_the_key_do_not_end_it(execution: Path) -> None:
    with Recorder(execution) as line:
        begin(line)
    desk = json.loads(desk_of(execution).read_text(encoding="utf-8"))
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client(desk["address"], authkey=b"another")
    rude = Client(desk["address"], authkey=bytes.fromhex(desk["key"]))
    rude.send(("start", ("head", {}, processes.key(psutil.Process()), 0.0, {})))
    rude.close()

    with Recorder(execution) as line:
        begin(line)

    assert claims.holds(desk)
    assert json.loads(desk_of(execution).read_text(encoding="utf-8")) == desk


def test_a_desk_at_which_another_program_answers_is_given_up(execution: Path) -> None:
    with Recorder(execution) as line:
        begin(line)
    desk = desk_of(execution)
    old = json.loads(desk.read_text(encoding="utf-8"))
    with Listener(authkey=b"another") as other:
        desk.write_text(json.dumps({**old, "address": other.address}), encoding="utf-8")
        processes.find(old["process"]).kill()
        caller = subprocess.Popen([sys.executable, "-c", CALL], cwd=execution, stdout=subprocess.PIPE)
        with pytest.raises((AuthenticationError, EOFError, OSError)):
            other.accept()
        assert caller.communicate(timeout=60)[0].strip() == b"recorded"


def test_a_half_written_desk_is_cleared_away(execution: Path) -> None:
    folder = execution / ".graft" / "recorders"
    (folder / "0123456789abcdef.json").write_text('{"address": "no', encoding="utf-8")

    with Recorder(execution) as line:
        begin(line)

    assert desk_of(execution).name != "0123456789abcdef.json"


def test_a_caller_that_says_nothing_does_not_hold_up_a_stage(execution: Path) -> None:
    with Recorder(execution) as line:
        begin(line)
    desk = json.loads(desk_of(execution).read_text(encoding="utf-8"))

    with Client(desk["address"]), Client(desk["address"]), Recorder(execution) as line:
        assert begin(line)


def test_the_folder_of_temporary_files_may_have_a_long_path(
    execution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))

    with Recorder(execution) as line:
        assert begin(line)


CALL = """
from pathlib import Path
import psutil
from graft.flows.runtime import processes
from graft.flows.stage.recorder import Recorder
with Recorder(Path.cwd()) as line:
    line("start", "head", {}, processes.key(psutil.Process()), 0.0, {})
print("recorded")
"""
