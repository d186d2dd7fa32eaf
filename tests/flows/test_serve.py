"""The deployment: scheduled, one run at a time, and refused when the schedule makes no sense."""

from __future__ import annotations

import signal
import subprocess
import sys

from projects import Project, ask, draw, wait_for

from tasks.common.paths import STAGES


def test_a_deployment_is_served_with_its_schedule_and_runs_all_stages_for_new_images(
    finished: Project, project: Project, prefect_api: dict[str, str]
) -> None:
    draw(project.root / "data" / "raw" / "red" / "new.png", 0, 999)
    words = ["serve", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--name", "nightly"]
    served = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=project.root,
        env=project.environment(**prefect_api),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deployment = wait_for(lambda: find(prefect_api))
        schedule = deployment.schedules[0].schedule
        assert (schedule.cron, schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
        assert deployment.parameters == {"project": str(project.root)}
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert deployment.entrypoint == "flows.retrain.retrain"

        run = ask(prefect_api, lambda client: client.create_flow_run_from_deployment(deployment.id))
        ended = wait_for(lambda: final(prefect_api, run.id))
        assert ended.state_name == "Completed"
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    assert project.json("metrics/preprocess.json")["images"] == 43
    for stage in STAGES:
        assert project.json(f"runs/{stage}.json")["run_id"] != finished.json(f"runs/{stage}.json")["run_id"], "it ran"
    assert project.repro() == []


def find(prefect_api: dict[str, str]):  # type: ignore[no-untyped-def]
    deployments = ask(prefect_api, lambda client: client.read_deployments())
    return next((deployment for deployment in deployments if deployment.name == "nightly"), None)


def final(prefect_api: dict[str, str], run_id):  # type: ignore[no-untyped-def]
    run = ask(prefect_api, lambda client: client.read_flow_run(run_id))
    return run if run.state is not None and run.state.is_final() else None


def test_what_is_no_schedule_is_refused(project: Project) -> None:
    for words, told in (
        (["--cron", "every night"], "every night"),
        (["--cron", "0 2 * * *", "--timezone", "Mars/Base"], "Mars/Base"),
    ):
        done = project.graft("serve", *words, check=False)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr
