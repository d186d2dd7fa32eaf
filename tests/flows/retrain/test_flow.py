"""The flow under a real Prefect server: a task a stage, nothing left running, retries for input and output only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pandas as pd
import psutil
import pytest
from projects import Project, ask, hold, release, wait_for

from graft.tasks.common.core.paths import STAGES
from graft.tasks.pipeline import Output, StageFailed, may_be_tried_again


def flow_run_of(project: Project, prefect_api: dict[str, str]) -> Any:
    """The only flow run of this project."""
    runs = ask(prefect_api, lambda client: client.read_flow_runs())
    (run,) = [run for run in runs if run.parameters.get("project") == str(project.root)]
    return run


def stage_processes(project: Project) -> list[psutil.Process]:
    """Processes of a stage, or of DVC, that work in this project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(project.root) and ("graft.flows.stage" in words or "dvc" in words):
            found.append(process)
    return found


def newest_parent(project: Project) -> Any:
    return [run for run in project.runs() if "mlflow.parentRunId" not in run.data.tags][-1]


def start_run(project: Project, prefect_api: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", "run"],
        cwd=project.root,
        env=project.environment(**prefect_api),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_graft_run_is_one_flow_run_with_a_task_a_stage(project: Project, prefect_api: dict[str, str]) -> None:
    project.set("head", l2_max=0.5)

    done = project.graft("run", "--json", **prefect_api)

    import json

    result = json.loads(done.stdout[done.stdout.index("{") :])
    lines = [line.partition("Task run 'features' - ")[2] for line in done.stderr.splitlines() if "'features'" in line]
    assert lines == ["unchanged: the earlier result is reused"], "one line for a stage"
    assert "Finished in state" not in done.stderr
    assert "Downloading" not in done.stderr
    assert [(stage["stage"], stage["ran"]) for stage in result["stages"]] == [
        (stage, stage not in ("preprocess", "features")) for stage in STAGES
    ]
    flow_run = flow_run_of(project, prefect_api)
    assert flow_run.state_name == "Completed"
    tasks = ask(prefect_api, lambda client: client.read_task_runs())
    names = {task.name: task.state_name for task in tasks if task.flow_run_id == flow_run.id}
    assert names == dict.fromkeys(("sync", "plan", *STAGES, "champion", "check", "gate", "promote"), "Completed")

    parent = project.mlflow().get_run(result["parent_run_id"])
    assert parent.data.tags["prefect.flow_run_id"] == str(flow_run.id)
    assert parent.data.tags["graft.reused.features"]
    assert parent.info.status == "FINISHED"
    children = [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") == result["parent_run_id"]]
    assert {run.info.run_name for run in children} == {"head", "audit", "finetune", "evaluate", "register"}
    assert {run.data.tags["prefect.flow_run_id"] for run in children} == {str(flow_run.id)}

    artifacts = ask(prefect_api, lambda client: client.read_artifacts())
    mine = {artifact.key: artifact.data for artifact in artifacts if artifact.flow_run_id == flow_run.id}
    assert result["parent_run_id"] in mine["summary"]
    assert all(stage in mine["stages"] for stage in STAGES)
    assert "gain" in mine["gate"]
    assert result["outcome"]["what"] in ("waits", "undecided", "refused"), "promoting is left to the user"
    assert str(project.mlflow().get_model_version_by_alias("graft", "champion").version) == "1"


def test_a_failed_stage_fails_the_run_with_the_stages_own_words(project: Project, prefect_api: dict[str, str]) -> None:
    for name in ("green", "blue"):
        for file in (project.root / "data" / "raw" / name).iterdir():
            file.unlink()

    done = project.graft("run", check=False, **prefect_api)

    assert done.returncode == 2
    assert "fewer than two classes" in done.stderr
    assert "Traceback" not in done.stderr
    assert flow_run_of(project, prefect_api).state_name == "Failed"


def test_a_run_waits_for_another_dvc_command(project: Project, prefect_api: dict[str, str]) -> None:
    other = hold(project.root)
    run = start_run(project, prefect_api)
    assert run.stdout is not None
    line = next(line for line in run.stdout if "waiting for" in line)
    assert run.poll() is None
    release(other)
    run.communicate()

    assert f"(process {other.pid}), at most 60 minutes" in line
    assert run.returncode == 0


def test_a_manifest_of_other_images_is_made_again(project: Project, prefect_api: dict[str, str]) -> None:
    file = project.root / "data" / "manifest" / "manifest.parquet"
    right = file.read_bytes()
    manifest = pd.read_parquet(file)
    manifest["path"] = manifest["path"].replace({"blue/000.png": "blue/gone.png"})
    manifest.to_parquet(file)
    project.dvc("commit", "--force", "preprocess")  # as DVC does when the folder is as before once the stage has ended

    done = project.graft("run", "--json", **prefect_api)

    assert "preprocess had seen other images than data/raw has (1 missing, such as blue/gone.png" in done.stderr
    assert file.read_bytes() == right
    stages = json.loads(done.stdout[done.stdout.index("{") :])["stages"]
    assert [stage["stage"] for stage in stages if stage["ran"]] == ["preprocess"]


def test_the_time_limit_kills_all_processes_of_the_stage(project: Project, prefect_api: dict[str, str]) -> None:
    project.set("head", l2_max=0.5)
    project.set("retrain", time_limit_minutes=0.01)

    done = project.graft("run", check=False, **prefect_api)

    assert done.returncode == 2
    assert "not done after 0.01 minutes" in done.stderr
    assert stage_processes(project) == []


def test_the_time_limit_ends_a_source_that_does_not_answer(project: Project, prefect_api: dict[str, str]) -> None:
    os.mkfifo(project.root / "silent")
    silent = "from pathlib import Path\nfrom graft.flows.cli import main\nfrom graft.flows.retrain import steps\n"
    silent += "steps.bring_new = lambda *_: Path('silent').read_text()\n"  # as a disk of a server that is away
    silent += "main.main()\n"
    project.set("retrain", time_limit_minutes=0.2)
    project.git("commit", "--quiet", "--all", "--message", "a short limit")

    done = project.call(sys.executable, "-c", silent, "run", "--unattended", check=False, **prefect_api)

    assert done.returncode == 2
    assert "sync" in done.stderr
    assert "not done after 0.2 minutes" in done.stderr


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_no_stage_outlives_a_flow_that_is_ended(
    project: Project, prefect_api: dict[str, str], sign: signal.Signals
) -> None:
    project.set("preprocess", seed=1)
    flow = start_run(project, prefect_api)
    wait_for(lambda: any("graft.flows.stage" in process.info["cmdline"] for process in stage_processes(project)))

    at_work = [process.pid for process in stage_processes(project)]
    os.kill(flow.pid, sign)
    flow.communicate(timeout=60)

    wait_for(lambda: not stage_processes(project), seconds=30)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in at_work), seconds=30)  # or DVC waits for them
    assert project.repro("preprocess") == ["preprocess"], "what was cut off is done by the next run"
    assert {run.info.status for run in project.runs() if run.info.run_name.startswith("retrain")} == {"KILLED"}


def test_only_input_and_output_is_tried_again() -> None:
    from prefect.states import Failed

    def failed(kind: str) -> Any:
        return Failed(data=StageFailed("head", kind, "it broke", "fix it"))

    assert may_be_tried_again(None, None, failed("io"))  # type: ignore[arg-type]
    assert not may_be_tried_again(None, None, failed("user"))  # type: ignore[arg-type]
    assert not may_be_tried_again(None, None, failed("time"))  # type: ignore[arg-type]
    assert not may_be_tried_again(None, None, Failed(data=MemoryError()))  # type: ignore[arg-type]


def test_a_stages_error_ends_where_its_own_lines_end() -> None:
    output = Output("head")
    output.lines = ["loading", "error: it is wrong", "  do:      fix it", "", "a thread said goodbye", "ERROR: failed"]

    assert output.error() == "it is wrong\n    do:      fix it"


@pytest.fixture(scope="module")
def troubled(
    finished: Project, tmp_path_factory: pytest.TempPathFactory, prefect_api: dict[str, str]
) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project whose head fails to read and spoils the record, and what `graft run` with a retry said of it."""
    project = finished.copy(tmp_path_factory.mktemp("troubled") / "project")
    project.set("retrain", retries=1)
    spoil(project, "head", 'open("runs/preprocess.json", "w").write("{")\n    raise OSError(5, "the true reason")')
    return project, project.graft("run", check=False, **prefect_api)


def test_a_failure_of_input_is_tried_again_as_often_as_asked(
    troubled: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, done = troubled
    tries = [run for run in project.runs() if run.info.run_name == "head" and run.info.status == "FAILED"]

    assert done.returncode == 2
    assert len(tries) == 2


def test_trouble_with_the_record_hides_no_stages_error(
    troubled: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    _, done = troubled

    assert "the true reason" in done.stderr
    assert "JSONDecodeError" not in done.stderr


def spoil(project: Project, stage: str, line: str) -> None:
    """Puts a body of one line in the place of the stage's own."""
    file = project.own_code() / "tasks" / stage / "stage.py"
    body = f"def run(*_: object) -> Record:\n    {line}\n\n\ndef _run"
    file.write_text(file.read_text(encoding="utf-8").replace("def run", body, 1), encoding="utf-8")


OWN_FLOW = """
import sys
from prefect import flow
from graft.tasks.pipeline import features, head, preprocess

@flow
def mine(project: str) -> list:
    return [preprocess(project), features(project), head(project, environment={"X": "1"})]

print([result["ran"] for result in mine(sys.argv[1])])
"""


def start_own_flow(project: Project, prefect_api: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWN_FLOW, str(project.root)],
        cwd=project.root,
        env=project.environment(**prefect_api),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_tasks_of_someones_own_flow_share_one_parent(project: Project, prefect_api: dict[str, str]) -> None:
    project.set("preprocess", seed=9)

    told, _ = start_own_flow(project, prefect_api).communicate(timeout=120)

    assert "[True, True, True]" in told
    parent = newest_parent(project)
    children = [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [run.info.run_name for run in children] == ["preprocess", "features", "head"]
    assert {run.data.tags["prefect.flow_run_id"] for run in [parent, *children]} == {
        str(flow_run_of(project, prefect_api).id)
    }


def test_no_stage_outlives_someones_own_flow(project: Project, prefect_api: dict[str, str]) -> None:
    spoil(project, "preprocess", "import threading; threading.Event().wait()")
    flow = start_own_flow(project, prefect_api)
    wait_for(lambda: any("graft.flows.stage" in process.info["cmdline"] for process in stage_processes(project)))

    flow.kill()
    flow.communicate(timeout=60)

    wait_for(lambda: not stage_processes(project), seconds=30)
