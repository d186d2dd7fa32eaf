"""The deployment: scheduled, one run at a time, and refused when the schedule makes no sense."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from projects import Project, ask, draw, made_repository, wait_for

from graft.flows.retrain.schedule import next_run, place_of_results
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES


def test_a_deployment_is_served_with_its_schedule_and_runs_all_stages_for_new_images(
    finished: Project, project: Project, prefect_api: dict[str, str], tmp_path: Path
) -> None:
    draw(project.root / "data" / "raw" / "red" / "new.png", 0, 999)
    project.dvc("add", "data/raw")
    project.git("add", "--all")
    made_repository(project, tmp_path)
    (project.root / "note.txt").write_text("a user is at work here", encoding="utf-8")
    before = project.git("status", "--porcelain"), project.git("rev-parse", "HEAD"), project.lock()
    words = ["schedule", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--name", "nightly"]
    served = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", *words],
        cwd=project.root,
        env=project.environment(**prefect_api, PREFECT_RUNNER_POLL_FREQUENCY="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deployment = wait_for(lambda: find(prefect_api))
        schedule = deployment.schedules[0].schedule
        assert (schedule.cron, schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
        assert deployment.parameters == {"project": str(project.root), "unattended": True}
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert deployment.entrypoint == "graft.flows.retrain.flow.retrain"

        run = ask(prefect_api, lambda client: client.create_flow_run_from_deployment(deployment.id))
        ended = wait_for(lambda: final(prefect_api, run.id), seconds=300)
        assert ended.state_name == "Completed"
    finally:
        served.send_signal(signal.SIGINT)
        told, _ = served.communicate(timeout=60)
    assert "retrain/nightly is scheduled: 0 2 * * * (Europe/Berlin)" in told
    assert "results are pushed to the git remote origin" in told
    assert re.search(r"^next run: \d{4}-\d\d-\d\d 02:00 CES?T$", told, re.MULTILINE)
    assert (project.git("status", "--porcelain"), project.git("rev-parse", "HEAD"), project.lock()) == before
    result = clone(tmp_path)
    assert result.json("metrics/preprocess.json")["images"] == 43
    assert result.repro("--pull") == [], "what was pushed is whole and up to date"
    for stage in STAGES:
        assert result.json(f"runs/{stage}.json")["run_id"] != finished.json(f"runs/{stage}.json")["run_id"], "it ran"


def test_the_schedule_says_that_results_stay_here_where_no_remote_is_the_users(empty_project: Project) -> None:
    told = place_of_results(empty_project.root)

    assert "results stay on the local branch graft/retrain: there is no git remote `origin`" in told
    assert "do: git remote add origin ADDRESS" in told


def test_a_run_that_names_another_project_is_refused(
    empty_project: Project, prefect_api: dict[str, str], tmp_path: Path
) -> None:
    trap = planted(tmp_path / "trap", tmp_path / "sprung")
    served = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", "schedule", "--cron", "0 2 1 1 *", "--name", "trapped"],
        cwd=empty_project.root,
        env=empty_project.environment(**prefect_api, PREFECT_RUNNER_POLL_FREQUENCY="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deployment = wait_for(lambda: find(prefect_api, "trapped"))
        asked = {"project": str(trap), "unattended": False}
        run = ask(prefect_api, lambda client: client.create_flow_run_from_deployment(deployment.id, parameters=asked))
        refused = wait_for(lambda: final(prefect_api, run.id))
    finally:
        served.send_signal(signal.SIGINT)
        served.wait(60)
    assert refused.state_name == "Failed"
    assert "this deployment runs another project" in refused.state.message
    assert not (tmp_path / "sprung").exists(), "no command of that project has run"


def planted(folder: Path, sprung: Path) -> Path:
    """A folder whose pipeline runs somebody else's command."""
    folder.mkdir()
    command = f"touch {sprung}"
    stages = {stage: {"cmd": command, "always_changed": True} for stage in STAGES}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    (folder / "params.yaml").write_text("{}", encoding="utf-8")
    return folder


def clone(folder: Path) -> Project:
    """What others find in the remote, with its data."""
    project = Project(folder / "clone")
    subprocess.run(["git", "clone", "--quiet", str(folder / "remote.git"), str(project.root)], check=True)
    project.dvc("pull", "--quiet")
    return project


def find(prefect_api: dict[str, str], name: str = "nightly"):  # type: ignore[no-untyped-def]
    deployments = ask(prefect_api, lambda client: client.read_deployments())
    return next((deployment for deployment in deployments if deployment.name == name), None)


def final(prefect_api: dict[str, str], run_id):  # type: ignore[no-untyped-def]
    run = ask(prefect_api, lambda client: client.read_flow_run(run_id))
    return run if run.state is not None and run.state.is_final() else None


def test_a_project_that_is_not_under_git_is_refused(project: Project) -> None:
    (project.root / ".git").rename(project.root / ".away")
    done = project.graft_here("schedule", "--cron", "0 2 * * *", check=False)
    assert done.returncode == 2
    assert "no git repository" in done.stderr


def refusal(cron: str, timezone: str) -> GraftError:
    with pytest.raises(GraftError, match="--cron or --timezone cannot be used") as refused:
        next_run(cron, timezone)
    assert "five fields" in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("cron", "got"),
    [
        ("every night", "'every night'"),
        ("0 2 * * * 5", "6 fields"),
        ("@daily", "1 fields"),
        ("0 2 31 2 *", "there is no such date"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_refused(cron: str, got: str) -> None:
    assert got in str(refusal(cron, "UTC").got)


@pytest.mark.parametrize(("timezone", "got"), [("Mars/Base", "Mars/Base"), ("", "the time zone is empty")])
def test_a_time_zone_that_does_not_exist_is_refused(timezone: str, got: str) -> None:
    assert got in str(refusal("0 2 * * *", timezone).got)


def test_the_command_refuses_it_before_it_starts_a_server(project: Project) -> None:
    done = project.graft_here("schedule", "--cron", "0 2 31 2 *", check=False)

    assert done.returncode == 2
    assert "there is no such date" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.root / ".graft" / "prefect-server.log").exists()


def test_the_next_run_is_in_the_time_zone_of_the_schedule() -> None:
    found = next_run("30 2 * * *", "Europe/Berlin")

    assert (found.hour, found.minute) == (2, 30)
    assert found.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
    assert datetime.now(UTC) < found < datetime.now(UTC) + timedelta(days=1, hours=2)
