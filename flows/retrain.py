"""The Prefect flow `retrain`: every stage brought up to date, one after another, and what came of it on one page."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_UI_URL

from tasks.common.environment import FLOW_RUN_URL, PARENT
from tasks.common.errors import GraftError
from tasks.common.files import read_json
from tasks.common.paths import Paths
from tasks.common.task import MAIN
from tasks.pipeline import STAGE_TASKS, run_dvc

from . import processes
from .config import RetrainParams, load_params
from .registry import restore_challenger
from .servers import MLFLOW_PORT, PREFECT_PORT, own_address
from .tracking import Tracker
from .versioning import raw_hash


class _SayErrorsOnly(logging.Filter):
    """An error that the user can mend is logged without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], GraftError):
            record.msg, record.args, record.exc_info = "%s", (record.exc_info[1],), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_SayErrorsOnly())


@task(name="sync", task_run_name="sync", cache_policy=NO_CACHE, persist_result=False)
def sync(project: str, time_limit_minutes: float) -> str:
    """Has DVC look at the images and remember them as they are now; returns the hash of data/raw."""
    root = Path(project)
    if (root / "data" / "raw.dvc").is_file():
        run_dvc(["repro", "data/raw.dvc"], root, time_limit_minutes, {}, "sync")
    return raw_hash(root)


def _run_name() -> str:
    return f"retrain {Path(runtime.flow_run.parameters['project']).resolve().name}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False, log_prints=False)
def retrain(project: str) -> dict[str, Any]:
    """Brings every stage of a project up to date.

    Args:
        project: the folder of dvc.yaml.

    Returns:
        `parent_run_id` (MLflow's run of this execution), `stages` (one result each), `evaluate` (the test's figures).

    Raises:
        StageFailed: a stage did not end well; what ran before it stays.
    """
    root = Path(project).resolve()
    params: RetrainParams = load_params(root / "params.yaml")["retrain"]  # type: ignore[assignment]
    tracker = Tracker(root)
    parent = tracker.new_parent(runtime.flow_run.name or "retrain", _flow_tags())
    environment = {PARENT: parent, FLOW_RUN_URL: _flow_run_page()}
    results: list[dict[str, Any]] = []
    try:
        sync(str(root), params.time_limit_minutes)
        for stage_task in STAGE_TASKS:
            patient = stage_task.with_options(retries=params.retries, retry_delay_seconds=params.retry_seconds)
            results.append(patient(str(root), params.time_limit_minutes, environment))
    except BaseException as error:
        _wind_up(root, tracker, parent, results, _status(error))
        raise
    problems = _wind_up(root, tracker, parent, results, "FINISHED")
    if problems:
        raise problems[0]
    get_run_logger().info("%d of %d stages ran", sum(result["ran"] for result in results), len(results))
    return {"parent_run_id": parent, "stages": results, "evaluate": read_json(Paths(root).metrics("evaluate"))}


def _status(error: BaseException) -> str:
    """What became of a run that ended with this: Prefect cancels with signals, which are no ordinary exceptions."""
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, CancelledRun) else "KILLED"


def _wind_up(root: Path, tracker: Tracker, parent: str, results: list[dict[str, Any]], status: str) -> list[Exception]:
    """Closes the record and writes the page, each even if the other fails; what failed is logged and returned."""
    steps: dict[str, Callable[[], object]] = {
        "MLflow's run cannot be closed": lambda: tracker.close_parent(parent, status, tested=True),
        "the alias of the model cannot be checked": lambda: status == "FINISHED" and restore_challenger(tracker),
        "the page of the run cannot be written": lambda: _artifacts(root, tracker, parent, results),
    }
    problems: list[Exception] = []
    for trouble, step in steps.items():
        try:
            step()
        except Exception as error:  # noqa: BLE001  (a stage's own error must not be hidden by it)
            get_run_logger().error("%s: %s", trouble, error)
            problems.append(error)
    return problems


def _flow_tags() -> dict[str, str]:
    tags = {"graft.process": processes.key(processes.me()), "prefect.flow_run_id": str(runtime.flow_run.id)}
    return {**tags, "prefect.flow_run_url": _flow_run_page()}


def _flow_run_page() -> str:
    """The run's page in Prefect; for a server that ends with the run, where `graft ui` would show it."""
    known = PREFECT_UI_URL.value() if os.environ.get("PREFECT_API_URL") else None
    return f"{(known or f'http://127.0.0.1:{PREFECT_PORT}').rstrip('/')}/runs/flow-run/{runtime.flow_run.id}"


def run_link(tracker: Tracker, run_id: str) -> str:
    """The address of a run in MLflow's pages; for a store in a file, where `graft ui` would show it."""
    base = tracker.uri if tracker.uri.startswith("http") else own_address("MLflow", tracker.paths.root)
    base = base or f"http://127.0.0.1:{os.environ.get('GRAFT_MLFLOW_PORT', MLFLOW_PORT)}"
    return f"{base.rstrip('/')}/#/experiments/{tracker.experiment_id}/runs/{run_id}"


def _artifacts(root: Path, tracker: Tracker, parent: str, results: list[dict[str, Any]]) -> None:
    """The stages as a table, and the whole in words with links, on the flow run's page."""
    rows = [
        {
            "stage": result["stage"],
            "": "ran" if result["ran"] else "reused",
            "seconds": result["seconds"],
            "MLflow run": run_link(tracker, result["run_id"]),
        }
        for result in results
    ]
    create_table_artifact(table=rows, key="stages", description="What ran, and what was reused")
    lines = [f"[The MLflow run of this execution]({run_link(tracker, parent)})", ""]
    lines += ["| stage | | seconds | MLflow |", "| --- | --- | ---: | --- |"]
    lines += [f"| {row['stage']} | {row['']} | {row['seconds']} | [run]({row['MLflow run']}) |" for row in rows]
    evaluate = Paths(root).metrics("evaluate")
    if evaluate.is_file() and len(rows) == len(STAGE_TASKS):
        test = read_json(evaluate)
        main = MAIN[test["task"]]
        value, low, high = (f"{test[key]:.4f}" for key in main.keys)
        lines.insert(0, f"**Test {main.title} {value}** ({low} to {high})\n")
    create_markdown_artifact(markdown="\n".join(lines), key="summary", description="What came of it")
