"""The run's pages in Prefect and MLflow: their addresses, and the tables and the summary that Prefect shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_UI_URL

from graft.tasks.addresses import without_secrets
from graft.tasks.common.core.files import read_json
from graft.tasks.common.data.task import main_in
from graft.tasks.pipeline import STAGE_TASKS

from ..gate.verdict import EARLIER_LOOKS, NEW_IMAGES
from ..runtime import processes
from ..runtime.servers import MLFLOW_PORT, PREFECT_PORT, own_address
from ..status.pending import Changes
from ..tracking.store import run_page
from ..tracking.tracker import Tracker
from .outcome import Outcome, checks_table
from .working_copy import WorkingCopy

MLFLOW_PAGES = "GRAFT_MLFLOW_PAGES"
"""The variable with the address at which users see MLflow's pages, where programs use another one."""


def flow_run_page() -> str:
    """The run's page in Prefect; for a server that ends with the run, where `graft ui` would show it."""
    known = PREFECT_UI_URL.value() if os.environ.get("PREFECT_API_URL") else None
    return f"{(known or f'http://127.0.0.1:{PREFECT_PORT}').rstrip('/')}/runs/flow-run/{runtime.flow_run.id}"


def flow_tags() -> dict[str, str]:
    """The tags of MLflow's parent run that name the flow run and its process."""
    tags = {"graft.process": processes.key(processes.me()), "prefect.flow_run_id": str(runtime.flow_run.id)}
    return {**tags, "prefect.flow_run_url": flow_run_page()}


def run_link(tracker: Tracker, run_id: str, project: Path) -> str:
    """The address of a run in MLflow's pages; for a store in a file, where `graft ui` would show it."""
    base = os.environ.get(MLFLOW_PAGES) or (without_secrets(tracker.uri) if tracker.uri.startswith("http") else "")
    base = (
        base or own_address("MLflow", project) or f"http://127.0.0.1:{os.environ.get('GRAFT_MLFLOW_PORT', MLFLOW_PORT)}"
    )
    return f"{base.rstrip('/')}/{run_page(tracker.experiment_id, run_id)}"


def write_artifacts(
    copy: WorkingCopy,
    tracker: Tracker,
    parent: str,
    results: list[dict[str, Any]],
    changes: Changes,
    outcome: Outcome | None,
) -> None:
    """Puts the stages and the gate as tables, and a summary with links, on the flow run's page."""
    rows = [
        {
            "stage": result["stage"],
            "": "ran" if result["ran"] else "reused",
            "seconds": result["seconds"],
            "MLflow run": run_link(tracker, result["run_id"], copy.project),
        }
        for result in results
    ]
    create_table_artifact(table=rows, key="stages", description="Stages that ran or were reused")
    if outcome is not None:
        create_table_artifact(table=outcome.verdict.rows(), key="gate", description=outcome.sentence())
    lines = [*_headlines(copy, changes, outcome, whole=len(rows) == len(STAGE_TASKS))]
    lines += [f"[The MLflow run of this execution]({run_link(tracker, parent, copy.project)})", ""]
    lines += ["| stage | | seconds | MLflow |", "| --- | --- | ---: | --- |"]
    lines += [f"| {row['stage']} | {row['']} | {row['seconds']} | [run]({row['MLflow run']}) |" for row in rows]
    lines += ["", checks_table(outcome.verdict)] if outcome is not None else []
    create_markdown_artifact(markdown="\n".join(lines), key="summary", description="Summary of the run")


def _headlines(copy: WorkingCopy, changes: Changes, outcome: Outcome | None, *, whole: bool) -> list[str]:
    """The outcome, the reason for the run, and the main test metric of a run whose stages have all ended."""
    lines = [f"**{outcome.sentence()}**\n"] if outcome is not None else []
    lines += [f"{changes.sentence}\n"] if changes.sentence else []
    evaluate = copy.paths.metrics("evaluate")
    if whole and evaluate.is_file():
        test = read_json(evaluate)
        lines.append(f"**Test {main_in(test).stated(test)}**\n")
    return [*lines, *_about_the_test(outcome)]


def _about_the_test(outcome: Outcome | None) -> list[str]:
    """How far the test metric can be trusted: the metric on images that no choice has used, and the earlier looks."""
    checks = outcome.verdict.checks if outcome is not None else ()
    told = [each for each in checks if each.name in (NEW_IMAGES, EARLIER_LOOKS) and each.outcome == "noted"]
    return [f"{each.name[0].upper()}{each.name[1:]}: {each.found}\n" for each in told]
