"""The flow `drift` on a schedule: real server, real runs, a real webhook."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hook import listening
from PIL import Image
from projects import Project, ask, draw, wait_for

WORDS = ("schedule", "--cron", "0 2 1 1 *", "--name", "watch", "--drift")


def test_images_that_drift_are_notified_and_no_other_folder_is_read(
    project: Project, prefect_api: dict[str, str], tmp_path: Path
) -> None:
    answered = tmp_path / "answered"
    draw_brighter(answered, 3)
    with listening() as hook:
        params = yaml.safe_load((project.root / "params.yaml").read_text(encoding="utf-8"))
        params["retrain"]["notify"] = [hook.address]
        (project.root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        served = subprocess.Popen(
            [sys.executable, "-m", "graft.flows.cli.main", *WORDS, str(answered)],
            cwd=project.root,
            env=project.environment(**prefect_api, PREFECT_RUNNER_POLL_FREQUENCY="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            deployment = wait_for(lambda: find(prefect_api))
            few = run(prefect_api, deployment)
            draw_brighter(answered, 36)
            many = run(prefect_api, deployment)
            other = run(prefect_api, deployment, source=str(project.root))
        finally:
            served.send_signal(signal.SIGINT)
            told, _ = served.communicate(timeout=60)

    assert "drift/watch is scheduled: 0 2 1 1 * (UTC)" in told
    assert (few.state_name, many.state_name, other.state_name) == ("Completed", "Completed", "Failed")
    assert "too few new images to compare" in few.state.message
    assert "this deployment reads another folder" in other.state.message
    notice = next(got for got in hook.got if got["about"] == "drift")
    assert notice["facts"] == {"verdict": "drift", "tests": notice["facts"]["tests"], "images": 36}
    assert notice["facts"]["tests"]
    assert "drift: the new images differ from those that graft version 1 was trained on" in notice["text"]


def draw_brighter(folder: Path, count: int) -> None:
    """Images like those of the project, but in another light."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        file = folder / f"{number}.png"
        draw(file, number % 3, 100 + number)
        Image.fromarray((np.asarray(Image.open(file)) * 1.5).clip(0, 255).astype(np.uint8)).save(file)


def find(prefect_api: dict[str, str]) -> Any:
    deployments = ask(prefect_api, lambda client: client.read_deployments())
    return next((each for each in deployments if each.name == "watch"), None)


def run(prefect_api: dict[str, str], deployment: Any, **parameters: str) -> Any:
    """One run of the deployment, ended."""
    asked = {**deployment.parameters, **parameters}
    made = ask(prefect_api, lambda client: client.create_flow_run_from_deployment(deployment.id, parameters=asked))
    return wait_for(lambda: ended(prefect_api, made.id), seconds=300)


def ended(prefect_api: dict[str, str], run_id: Any) -> Any:
    found = ask(prefect_api, lambda client: client.read_flow_run(run_id))
    return found if found.state is not None and found.state.is_final() else None
