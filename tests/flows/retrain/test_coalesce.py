"""After an outage one run does for all that fell due meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.states import Scheduled
from projects import Project, ask, made_repository, wait_for


@contextmanager
def served(project: Project, prefect_api: dict[str, str]) -> Iterator[Any]:
    """The deployment, while `graft schedule` is up."""
    words = ["schedule", "--cron", "0 2 1 1 *", "--name", "outage"]
    process = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", *words],
        cwd=project.root,
        env=project.environment(**prefect_api, PREFECT_RUNNER_POLL_FREQUENCY="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield wait_for(lambda: deployment(project, prefect_api))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def deployment(project: Project, prefect_api: dict[str, str]) -> Any:
    found = ask(prefect_api, lambda client: client.read_deployments())
    mine = [one for one in found if one.name == "outage" and one.parameters.get("project") == str(project.root)]
    return mine[0] if mine else None


def test_of_the_runs_that_fell_due_one_runs_and_the_others_are_cancelled(
    project: Project, prefect_api: dict[str, str], tmp_path: Path
) -> None:
    made_repository(project, tmp_path)
    with served(project, prefect_api) as known:
        pass
    ask(prefect_api, lambda client: client.update_deployment(known.id, _unpaused()))
    past = datetime.now(UTC) - timedelta(hours=3)

    async def three(client: Any) -> list[Any]:
        return [
            await client.create_flow_run_from_deployment(known.id, state=Scheduled(scheduled_time=time))
            for time in (past, past + timedelta(hours=1), past + timedelta(hours=2))
        ]

    due = [run.id for run in ask(prefect_api, three)]
    with served(project, prefect_api):
        ended = wait_for(lambda: all_ended(prefect_api, due))

    assert sorted(run.state_name for run in ended) == ["Cancelled", "Cancelled", "Completed"]
    cancelled = [run for run in ended if run.state_name == "Cancelled"]
    assert all("replaces this run" in run.state.message or "concurrency" in run.state.message for run in cancelled)


def _unpaused() -> Any:
    from prefect.client.schemas.actions import DeploymentUpdate

    return DeploymentUpdate(paused=False)


def all_ended(prefect_api: dict[str, str], ids: list[Any]) -> list[Any] | None:
    async def read(client: Any) -> list[Any]:
        return [await client.read_flow_run(run_id) for run_id in ids]

    runs = ask(prefect_api, read)
    return runs if all(run.state is not None and run.state.is_final() for run in runs) else None
