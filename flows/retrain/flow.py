"""The Prefect flow `retrain`: get what is new, bring every stage up to date, judge the new model, and publish the
result. Each step is a task: sync, plan, the stages, champion, check, gate, promote, push, notify.

An attended run works in the checkout as it is, and leaves promoting and committing to the user. An unattended run works
in a git worktree of its own, one at a time, and does both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, runtime
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Completed

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.environment import FLOW_RUN_URL, PARENT, prepare_process
from graft.tasks.pipeline import STAGE_TASKS, StageFailed

from ..gate.verdict import Verdict
from ..registry.registering import ensure_registered
from ..runtime import processes
from ..runtime.params import RetrainParams, load_params
from ..status.pending import Changes
from ..tracking.store import tracking_uri
from ..tracking.tracker import Tracker
from ..versioning import stale
from . import steps
from .coalesce import coalesce
from .deployment import refuse_another_project
from .idle import is_idle, nothing_to_do
from .lock import Busy, alone
from .notices import failures_notified, notify_of_crash, notify_of_outcome, send
from .outcome import Outcome, parent_text
from .pages import flow_run_page, flow_tags, write_artifacts
from .run_log import make_brief
from .working_copy import WorkingCopy
from .worktree import committed_params, destination_of, repository
from .zombies import ensure_watch, last_crash, mark_crashed_runs, sign


def _run_name() -> str:
    return f"retrain {Path(runtime.flow_run.parameters['project']).resolve().name}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False, log_prints=False)
def retrain(project: str, unattended: bool = False) -> Any:
    """Brings every stage of a project up to date, and judges the resulting model.

    Args:
        project: the folder of dvc.yaml.
        unattended: in a git worktree of its own, with promotion, commit and push; or in the checkout, without.

    Returns:
        `parent_run_id` (MLflow's run of this execution), `stages` (one result each), `evaluate` (the test metrics),
        `outcome`, `checks`, `commit`; or Prefect's state Completed if there is nothing to do, and Cancelled if another
        run is at work.

    Raises:
        StageFailed: a stage failed; the results of the stages before it are kept.
        GraftError: another step failed, or this is the run of a deployment for another project.
    """
    make_brief()
    prepare_process()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    root = Path(project).resolve()
    refuse_another_project(root)
    return _unattended(root) if unattended else _work(root, False, lambda: None)


def _unattended(root: Path) -> Any:
    """One run at a time of all that share the repository; failures are notified."""
    processes.end_with_the_worker()
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking_uri(root))  # the project's store, not one in the worktree
    repo, params = repository(root), committed_params(root)
    with failures_notified(params):
        _handle_crashed_runs(params)
        goes = destination_of(root, params)
        if not goes.remote:
            get_run_logger().warning("%s", goes)
        try:
            with alone(repo, goes.remote, flow_run_page()) as still_ours:
                if runtime.deployment.id:
                    coalesce()
                return _work(root, True, still_ours)
        except Busy as busy:
            get_run_logger().warning("%s", busy)
            return Cancelled(message=f"{busy.what}: {busy.got}")


def _handle_crashed_runs(params: RetrainParams) -> None:
    """Signs this run with its process, marks crashed runs of the deployment, and notifies of the last one."""
    sign(str(runtime.flow_run.id))
    if not runtime.deployment.id:
        return
    deployment = str(runtime.deployment.id)
    ensure_watch(recipients=params.notify)
    mark_crashed_runs(deployment)
    crash = last_crash(deployment)
    if crash:
        notify_of_crash(params, crash)


def _work(project: Path, unattended: bool, still_ours: Callable[[], None]) -> Any:
    params = committed_params(project) if unattended else load_params(Paths(project).params).retrain
    patient: dict[str, Any] = {"retries": params.retries, "retry_delay_seconds": params.retry_seconds}
    copy = _in_time(steps.sync.with_options(**patient), project, unattended, params.time_limit_minutes)
    changes = steps.plan(copy)
    if changes.empty and (unattended or is_idle(copy.root, changes)):
        if copy.brought.changed:
            steps.publish_pool.with_options(**patient)(copy, still_ours)
            _ask_for_labels(copy, params, made_here=False)
        return Completed(
            message=f"{nothing_to_do(copy.paths)}{'; ' if copy.brought.words() else ''}{copy.brought.words()}"
        )
    return _bring_up_to_date(copy, changes, patient, still_ours)


def _ask_for_labels(copy: WorkingCopy, params: RetrainParams, *, made_here: bool) -> None:
    """If the pool changed, asks people about the images whose labels would help most."""
    if not copy.brought.changed or not params.ask:
        return
    notice = steps.ask(copy, params, made_here)
    if notice is not None:
        send(params, notice)


def _in_time(step: Any, project: Path, unattended: bool, minutes: float) -> WorkingCopy:
    """The step `sync`, whose source may never answer; in the checkout the step itself enforces the limit."""
    if not unattended:
        return cast(WorkingCopy, step(str(project), unattended, minutes))
    try:
        return cast(WorkingCopy, step.with_options(timeout_seconds=minutes * 60)(str(project), unattended, minutes))
    except TimeoutError as error:
        raise StageFailed(
            "sync",
            "time",
            f"not done after {minutes:g} minutes",
            "find out why `retrain.source` does not answer, or raise `retrain.time_limit_minutes`",
        ) from error


def _bring_up_to_date(
    copy: WorkingCopy, changes: Changes, patient: dict[str, Any], still_ours: Callable[[], None]
) -> dict[str, Any]:
    params, _ = copy.params()
    tracker = Tracker(copy.root)
    parent = tracker.new_parent(f"{runtime.flow_run.name or 'retrain'} · {datetime.now():%Y-%m-%d %H:%M}", flow_tags())
    results: list[dict[str, Any]] = []
    outcome, commit = None, ""
    try:
        if copy.workspace is not None:
            steps.fetch.with_options(**patient)(copy)
        environment = {PARENT: parent, FLOW_RUN_URL: flow_run_page()}
        for stage in STAGE_TASKS:
            results.append(_run_stage(stage.with_options(**patient), copy, params.time_limit_minutes, environment))
        ensure_registered(tracker, parent)
        verdict = _judge(copy, patient)
        outcome = steps.promote.with_options(**patient)(copy, verdict, parent, still_ours)
        if copy.workspace is not None:
            commit = steps.push.with_options(**patient)(copy, changes, outcome, parent, still_ours)
            notify_of_outcome(copy, params, outcome, parent)
            _ask_for_labels(copy, params, made_here=True)
    except BaseException as error:
        _finish(copy, tracker, parent, results, _status(error), changes, outcome)
        raise
    problems = _finish(copy, tracker, parent, results, "FINISHED", changes, outcome)
    if problems:
        raise problems[0]
    get_run_logger().info("%d of %d stages ran", sum(result["ran"] for result in results), len(results))
    return {
        "parent_run_id": parent,
        "stages": results,
        "evaluate": read_json(copy.paths.metrics("evaluate")),
        "outcome": outcome.facts(),
        "sentence": outcome.sentence(),
        "checks": outcome.verdict.facts(),
        "commit": commit,
    }


def _run_stage(stage: Any, copy: WorkingCopy, minutes: float, environment: dict[str, str]) -> dict[str, Any]:
    """Brings one stage up to date. If preprocess has seen other images than data/raw has, DVC cannot know; see
    `stale`."""
    done = stage(str(copy.root), minutes, environment)
    differ = stale.other_images(copy.root) if done["stage"] == "preprocess" else ""
    if not differ:
        return cast(dict[str, Any], done)
    get_run_logger().warning("preprocess had seen other images than data/raw has (%s): it is run again", differ)
    return cast(dict[str, Any], stage(str(copy.root), minutes, environment, force=True))


def _judge(copy: WorkingCopy, patient: dict[str, Any]) -> Verdict:
    """The gate's verdict; the champion's package is fetched, verified and read once for all checks."""
    with ExitStack() as kept:
        champion = steps.fetch_champion.with_options(**patient)(copy, kept)
        data = steps.check.with_options(**patient)(copy, champion)
        return cast(Verdict, steps.gate.with_options(**patient)(copy, champion, data))


def _status(error: BaseException) -> str:
    """The status in MLflow of a run that ended with this error. Prefect cancels runs with signals, which are not
    ordinary exceptions."""
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, CancelledRun) else "KILLED"


def _finish(
    copy: WorkingCopy,
    tracker: Tracker,
    parent: str,
    results: list[dict[str, Any]],
    status: str,
    changes: Changes,
    outcome: Outcome | None,
) -> list[Exception]:
    """Closes the record and writes the page, each even if the other fails; errors are logged and returned."""
    text = parent_text(tracker, copy.root, changes, outcome)
    reached = [result["stage"] for result in results]
    last_steps: dict[str, Callable[[], object]] = {
        "MLflow's run cannot be closed": lambda: tracker.finish_parent(parent, status, reached, text()),
        "the alias of the model cannot be checked": lambda: status == "FINISHED" and ensure_registered(tracker, parent),
        "the page of the run cannot be written": lambda: write_artifacts(
            copy, tracker, parent, results, changes, outcome
        ),
    }
    problems: list[Exception] = []
    for trouble, step in last_steps.items():
        try:
            step()
        except Exception as error:  # noqa: BLE001  (a stage's own error must not be hidden by it)
            get_run_logger().error("%s: %s", trouble, error)
            problems.append(error)
    return problems
