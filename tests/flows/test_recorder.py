"""The process that keeps MLflow loaded: it serves one execution, notices the dead, and leaves with its holder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
from projects import Project, wait_for


def recorders(project: Project) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if "flows.recorder" in (process.info["cmdline"] or []) and process.info["cwd"] == str(project.root)
    ]


def test_it_ends_with_the_execution_that_it_served(project: Project) -> None:
    project.set("head", l2_max=0.5)
    project.repro("head")

    wait_for(lambda: not recorders(project), seconds=20)
    assert list((project.root / ".graft" / "recorders").iterdir()) == []


def test_what_a_killed_recorder_left_is_cleared_away(project: Project) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = project.root / ".graft" / "recorders" / "0123456789abcdef.json"
    left.write_text(json.dumps({"address": "nowhere", "key": "00", "pid": gone.pid}), encoding="utf-8")
    project.set("head", l2_max=0.5)

    project.repro("head")

    assert not left.exists()


def test_a_killed_stage_is_marked_as_killed(project: Project) -> None:
    project.set("preprocess", seed=5)
    process = project.start_repro()
    wait_for(lambda: any(run.info.status == "RUNNING" and "graft.stage" in run.data.tags for run in project.runs()))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    wait_for(lambda: not recorders(project), seconds=20)
    assert "RUNNING" not in {run.info.status for run in project.runs()}
    assert "KILLED" in {run.info.status for run in project.runs()}


def test_a_recorder_that_was_killed_is_replaced(project: Project) -> None:
    project.set("head", l2_max=0.5)
    desks = project.root / ".graft" / "recorders"
    process = project.start_repro("evaluate")
    wait_for(
        lambda: [run for run in project.runs() if run.info.run_name == "head" and run.info.status == "FINISHED"][1:]
    )
    for desk in desks.glob("*.json"):
        os.kill(json.loads(desk.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
    process.wait()

    again = project.dvc("repro", "evaluate", check=False)
    assert again.returncode == 0
    assert project.repro("evaluate") == []
