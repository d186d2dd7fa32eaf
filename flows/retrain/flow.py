"""The Prefect flow `retrain`: find what is new, bring every stage up to date, judge the new model, and say what came of
it. Each step is a task: sync, plan, the stages, check, gate, promote, push, notify.

A person's run works in the checkout as it is, and leaves promoting and committing to the person. An unattended run
works in a git worktree of its own, one at a time, and does both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from mlflow.entities.model_registry import ModelVersion
from prefect import Task, flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_UI_URL
from prefect.states import Cancelled, Completed

from tasks.common.core.errors import GraftError, may_pass
from tasks.common.core.files import read_json
from tasks.common.core.paths import Paths
from tasks.common.data.task import MAIN
from tasks.environment import FLOW_RUN_URL, PARENT
from tasks.pipeline import STAGE_TASKS, StageFailed, run_dvc

from ..gate.checks import Check, Verdict, incomparable, judge, unopposed
from ..registry import ledger
from ..registry.models import CHAMPION, aliases_of, ensure_registered, fetched_package, find_version
from ..registry.registration import Registration, read_registration
from ..runtime import processes
from ..runtime.addresses import without_secrets
from ..runtime.params import GateParams, RetrainParams, load_params, model_name
from ..runtime.servers import MLFLOW_PORT, PREFECT_PORT, own_address
from ..status.pending import Changes, pending
from ..tracking.store import tracking_uri
from ..tracking.tracker import Tracker, server_may_recover
from ..versioning.dvc import dvc, dvc_remote, fetch_object, is_cached, raw_hash
from . import outcome as account
from .coalesce import coalesce
from .deployment import refuse_another_project
from .lock import Busy, alone
from .new_images import bring_new
from .notify import Notice
from .notify import notify as tell
from .outcome import Outcome
from .publish import publish
from .worktree import Workspace, committed_params, prepare, remote_of, repository
from .zombies import ensure_watch, last_crash, mark_crashed_runs, sign


class _SayErrorsOnly(logging.Filter):
    """An error that the user can mend is logged without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], GraftError):
            record.msg, record.args, record.exc_info = "%s", (record.exc_info[1],), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_SayErrorsOnly())


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    failure = state.result(raise_on_failure=False)
    kind = failure.kind if isinstance(failure, StageFailed) else ""
    return kind == "io" or may_pass(failure) or (isinstance(failure, Exception) and server_may_recover(failure))


def _step(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A task of the flow, tried again where a failure may pass by itself."""
    return task(
        name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_may_pass
    )


@dataclass(frozen=True)
class Place:
    """Where a run works and records.

    Attributes:
        project: the person's checkout.
        root: where the stages run: the same, or its like in the worktree.
        workspace: the worktree; None in the checkout.
    """

    project: Path
    root: Path
    workspace: Workspace | None = None

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def params(self) -> tuple[RetrainParams, GateParams]:
        params = load_params(self.paths.params)
        return params.retrain, params.gate


# The steps


@_step("sync")
def sync(project: str, unattended: bool, time_limit_minutes: float) -> Place:
    """Data and code as they are now: in the checkout DVC looks at the images; unattended, the worktree is brought to
    the newest commit, and what is new comes from `retrain.source`."""
    root = Path(project)
    if not unattended:
        if (root / "data" / "raw.dvc").is_file():
            run_dvc(["repro", "data/raw.dvc"], root, time_limit_minutes, {}, "sync")
        return Place(root, root)
    workspace = prepare(root, committed_params(root))
    place = Place(root, workspace.root, workspace)
    get_run_logger().info("%s", bring_new(workspace, place.params()[0]))
    digest = raw_hash(place.root)
    if digest and dvc_remote(place.root) and not is_cached(place.root, digest):
        fetch_object(place.root, digest, "the list of the images")  # by which the plan says which are new
    return place


@_step("plan")
def plan(place: Place) -> Changes:
    """What would run, and because of what."""
    changes = pending(place.root)
    get_run_logger().info("%s", "nothing to do" if changes.empty else changes.sentence)
    return changes


@_step("fetch")
def fetch(place: Place) -> None:
    """Brings the images, and weights that are under DVC, into the worktree."""
    files = [str(file.relative_to(place.root)) for file in sorted((place.root / "data").rglob("*.dvc"))]
    if files:
        verb = "pull" if dvc_remote(place.root) else "checkout"
        dvc(place.root, [verb, "--quiet", "--force", *files], "bringing the images into the worktree")


@_step("check")
def check(place: Place) -> tuple[Check, ...]:
    """What the features say of the new images."""
    from ..gate.data_checks import data_checks

    with _champion(place) as (version, package):
        if version is not None and str(version.version) == _registered(place).version:
            return data_checks(place.paths, None, None)
        return data_checks(place.paths, package, version)


@_step("gate")
def gate(place: Place, data: tuple[Check, ...]) -> Verdict:
    """Champion and challenger on the current test images."""
    from tasks.common.data.feature_set import read_feature_set

    from ..gate.comparison import contest, why_incomparable

    with _champion(place) as (version, package):
        if version is None or package is None or str(version.version) == _registered(place).version:
            return unopposed(data, "there is nothing to compare it with")
        why = why_incomparable(package, read_feature_set(place.paths.features))
        if why:
            return incomparable(data, why)
        return judge(contest(place.paths, package), data, place.params()[1])


@_step("promote")
def promote(place: Place, verdict: Verdict, parent: str, still_ours: Callable[[], None]) -> Outcome:
    """The challenger becomes the champion, or waits, or is refused; written into the ledger."""
    tracker = Tracker(place.root)
    registered = _registered(place)
    version = find_version(tracker, registered.name, registered.version)
    with ledger.locked(tracker, version.name):
        still_ours()
        outcome, kept = _decide(place, verdict, parent, tracker, version)
    if kept:
        tracker.client.log_artifact(parent, str(place.root / ledger.FILE))
    account.describe_version(tracker, version, outcome)
    get_run_logger().info("%s", outcome.sentence())
    return outcome


def _decide(
    place: Place, verdict: Verdict, parent: str, tracker: Tracker, version: ModelVersion
) -> tuple[Outcome, list[ledger.Entry]]:
    """What becomes of the version, and the ledger. A retry comes to the same: the ledger tells what was done before."""
    from ..registry import promotion

    kept = promotion.settle(tracker, version.name)
    champion, number = aliases_of(tracker, version.name).get(CHAMPION, ""), str(version.version)
    decided = ledger.decided(kept, number)
    if decided is not None and decided.flow_run_url == _flow_run_page() and decided.what in ("promoted", "refused"):
        return Outcome(decided.what, version.name, number, decided.previous, verdict), kept
    word = "passed" if verdict.passed else "refused"
    tracker.client.set_model_version_tag(version.name, number, promotion.GATE, f"{word}: {verdict.sentence}"[:5000])
    what = _what(place, verdict, place.params()[0], champion == number)
    made_here = _registered_by(place) == (parent, version.run_id)
    if what == "champion" and decided is not None and decided.what == "first" and made_here:
        what = "first"
    if what == "promoted":
        promotion.promote(tracker, version, verdict.sentence, metrics=verdict.metrics, flow_run_url=_flow_run_page())
    if what == "refused" and (decided is None or decided.what != "refused"):
        promotion.refuse(tracker, version, champion, verdict.sentence, verdict.metrics, _flow_run_page())
    return Outcome(what, version.name, number, champion, verdict), ledger.reconcile(tracker, version.name)


def _registered_by(place: Place) -> tuple[str, str]:
    """The pipeline's run and the stage's run that made the package."""
    made = read_json(place.paths.run("register"))
    return made["parent_run_id"], made["run_id"]


def _what(place: Place, verdict: Verdict, params: RetrainParams, champion: bool) -> str:
    if champion:
        return "champion"
    if not verdict.passed:
        return "refused"
    return "promoted" if place.workspace is not None and params.promote == "auto" else "waits"


@_step("push")
def push(place: Place, changes: Changes, outcome: Outcome, parent: str, still_ours: Callable[[], None]) -> str:
    """Data, then the commit; MLflow's run and version learn which commit holds the result."""
    assert place.workspace is not None
    commit = publish(place.workspace, account.commit_message(changes, outcome), still_ours)
    tracker = Tracker(place.root)
    tracker.client.set_tag(parent, "git.result", commit)
    if _registered_by(place)[0] == parent:
        tracker.client.set_model_version_tag(outcome.model, outcome.version, "git.result", commit)
    get_run_logger().info("pushed as %s", commit[:12])
    return commit


@_step("notify")
def notify(places: list[str], notice: Notice) -> None:
    """Tells people; that somebody cannot be told fails nothing."""
    for problem in tell(places, notice):
        get_run_logger().error("%s", problem)


# The flow


def _run_name() -> str:
    return f"retrain {Path(runtime.flow_run.parameters['project']).resolve().name}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False, log_prints=False)
def retrain(project: str, unattended: bool = False) -> Any:
    """Brings every stage of a project up to date, and judges the model that comes of it.

    Args:
        project: the folder of dvc.yaml.
        unattended: in a git worktree of its own, with promotion, commit and push; or in the checkout, without.

    Returns:
        `parent_run_id` (MLflow's run of this execution), `stages` (one result each), `evaluate` (the test's figures),
        `outcome`, `checks`, `commit`; or Prefect's state Completed where there is nothing to do, and Cancelled where
        another run is at work.

    Raises:
        StageFailed: a stage did not end well; what ran before it stays.
        GraftError: another step did not, or this is the run of a deployment for another project.
    """
    root = Path(project).resolve()
    refuse_another_project(root)
    if not unattended:
        return _work(root, False, lambda: None)
    processes.end_with_the_worker()
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking_uri(root))  # the project's store, not one in the worktree
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    repo, params = repository(root), committed_params(root)
    with _failures_told(params):
        _among_others(params)
        try:
            with alone(repo, remote_of(root, params), _flow_run_page()) as still_ours:
                if runtime.deployment.id:
                    coalesce()
                return _work(root, True, still_ours)
        except Busy as busy:
            get_run_logger().warning("%s", busy)
            return Cancelled(message=f"{busy.what}: {busy.got}")


def _among_others(params: RetrainParams) -> None:
    """Says which process this is, ends what died, and tells of it."""
    sign(str(runtime.flow_run.id))
    if not runtime.deployment.id:
        return
    deployment = str(runtime.deployment.id)
    ensure_watch(tell=params.notify)
    mark_crashed_runs(deployment)
    died = last_crash(deployment)
    if died:
        _tell(params, Notice("failure", "the last run has died", died, {"this run": _flow_run_page()}))


def _tell(params: RetrainParams, notice: Notice) -> None:
    """If people want to hear of it."""
    if params.notify and notice.about in params.notify_on:
        notify(list(params.notify), notice)


def _work(project: Path, unattended: bool, still_ours: Callable[[], None]) -> Any:
    params = committed_params(project) if unattended else load_params(Paths(project).params).retrain
    patient: dict[str, Any] = {"retries": params.retries, "retry_delay_seconds": params.retry_seconds}
    place = _in_time(sync.with_options(**patient), project, unattended, params.time_limit_minutes)
    changes = plan(place)
    if unattended and changes.empty:
        return Completed(message=account.nothing_to_do(place.paths))
    return _bring_up_to_date(place, changes, patient, still_ours)


def _in_time(step: Any, project: Path, unattended: bool, minutes: float) -> Place:
    """The step `sync`, which copies from places that may never answer; in the checkout it keeps the limit itself."""
    if not unattended:
        return cast(Place, step(str(project), unattended, minutes))
    try:
        return cast(Place, step.with_options(timeout_seconds=minutes * 60)(str(project), unattended, minutes))
    except TimeoutError as error:
        raise StageFailed(
            "sync",
            "time",
            f"not done after {minutes:g} minutes",
            "find out why `retrain.source` does not answer, or raise `retrain.time_limit_minutes`",
        ) from error


def _bring_up_to_date(
    place: Place, changes: Changes, patient: dict[str, Any], still_ours: Callable[[], None]
) -> dict[str, Any]:
    params, _ = place.params()
    tracker = Tracker(place.root)
    parent = tracker.new_parent(f"{runtime.flow_run.name or 'retrain'} · {datetime.now():%Y-%m-%d %H:%M}", _flow_tags())
    environment = {PARENT: parent, FLOW_RUN_URL: _flow_run_page()}
    results: list[dict[str, Any]] = []
    outcome, commit = None, ""
    try:
        if place.workspace is not None:
            fetch.with_options(**patient)(place)
        for stage_task in STAGE_TASKS:
            results.append(stage_task.with_options(**patient)(str(place.root), params.time_limit_minutes, environment))
        ensure_registered(tracker, parent)
        verdict = gate.with_options(**patient)(place, check.with_options(**patient)(place))
        outcome = promote.with_options(**patient)(place, verdict, parent, still_ours)
        if place.workspace is not None:
            commit = push.with_options(**patient)(place, changes, outcome, parent, still_ours)
            _tell_of(place, params, outcome, parent)
    except BaseException as error:
        _wind_up(place, tracker, parent, results, _status(error), changes, outcome)
        raise
    problems = _wind_up(place, tracker, parent, results, "FINISHED", changes, outcome)
    if problems:
        raise problems[0]
    get_run_logger().info("%d of %d stages ran", sum(result["ran"] for result in results), len(results))
    return {
        "parent_run_id": parent,
        "stages": results,
        "evaluate": read_json(place.paths.metrics("evaluate")),
        "outcome": outcome.facts(),
        "said": outcome.sentence(),
        "checks": outcome.verdict.rows(),
        "commit": commit,
    }


def _registered(place: Place) -> Registration:
    """The version that this run's package is."""
    found = read_registration(place.paths)
    assert found is not None  # `ensure_registered` comes before every step that asks
    return found


@contextmanager
def _champion(place: Place) -> Iterator[tuple[Any, Path | None]]:
    """The champion's version and its package, while the block runs; two times none without one."""
    tracker, name = Tracker(place.root), model_name(place.root)
    if CHAMPION not in aliases_of(tracker, name):
        yield None, None
        return
    version = find_version(tracker, name, CHAMPION)
    with fetched_package(tracker, version) as package:
        yield version, package


@contextmanager
def _failures_told(params: RetrainParams) -> Iterator[None]:
    """People learn that the run has failed, and why."""
    try:
        yield
    except Exception as error:
        title = f"{runtime.flow_run.name} has failed"
        if params.notify and "failure" in params.notify_on:  # not as a task: Prefect's server may be what has failed
            notice = Notice("failure", title, str(error)[:2000], {"the run": _flow_run_page()})
            for problem in tell(list(params.notify), notice):
                get_run_logger().error("%s", problem)
        raise


def _tell_of(place: Place, params: RetrainParams, outcome: Outcome, parent: str) -> None:
    about = outcome.about()
    if about:
        links = {"the run": _flow_run_page(), "MLflow": run_link(Tracker(place.root), parent, place.project)}
        title = f"{runtime.flow_run.name}: {outcome.sentence()}"
        _tell(params, Notice(about, title, account.checks_table(outcome.verdict), links, outcome.facts()))


def _status(error: BaseException) -> str:
    """What became of a run that ended with this: Prefect cancels with signals, which are no ordinary exceptions."""
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, CancelledRun) else "KILLED"


def _wind_up(
    place: Place,
    tracker: Tracker,
    parent: str,
    results: list[dict[str, Any]],
    status: str,
    changes: Changes,
    outcome: Outcome | None,
) -> list[Exception]:
    """Closes the record and writes the page, each even if the other fails; what failed is logged and returned."""
    told = account.parent_text(tracker, place.root, changes, outcome)
    reached = [result["stage"] for result in results]
    steps: dict[str, Callable[[], object]] = {
        "MLflow's run cannot be closed": lambda: tracker.finish_parent(parent, status, reached, told()),
        "the alias of the model cannot be checked": lambda: status == "FINISHED" and ensure_registered(tracker, parent),
        "the page of the run cannot be written": lambda: _artifacts(place, tracker, parent, results, changes, outcome),
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


MLFLOW_PAGES = "GRAFT_MLFLOW_PAGES"
"""The variable with the address at which people see MLflow's pages, where it is not the one that programs use."""


def run_link(tracker: Tracker, run_id: str, project: Path) -> str:
    """The address of a run in MLflow's pages; for a store in a file, where `graft ui` would show it."""
    base = os.environ.get(MLFLOW_PAGES) or (without_secrets(tracker.uri) if tracker.uri.startswith("http") else "")
    base = (
        base or own_address("MLflow", project) or f"http://127.0.0.1:{os.environ.get('GRAFT_MLFLOW_PORT', MLFLOW_PORT)}"
    )
    return f"{base.rstrip('/')}/#/experiments/{tracker.experiment_id}/runs/{run_id}"


def _artifacts(
    place: Place,
    tracker: Tracker,
    parent: str,
    results: list[dict[str, Any]],
    changes: Changes,
    outcome: Outcome | None,
) -> None:
    """The stages and the gate as tables, and the whole in words with links, on the flow run's page."""
    rows = [
        {
            "stage": result["stage"],
            "": "ran" if result["ran"] else "reused",
            "seconds": result["seconds"],
            "MLflow run": run_link(tracker, result["run_id"], place.project),
        }
        for result in results
    ]
    create_table_artifact(table=rows, key="stages", description="What ran, and what was reused")
    lines = [f"[The MLflow run of this execution]({run_link(tracker, parent, place.project)})", ""]
    lines += ["| stage | | seconds | MLflow |", "| --- | --- | ---: | --- |"]
    lines += [f"| {row['stage']} | {row['']} | {row['seconds']} | [run]({row['MLflow run']}) |" for row in rows]
    evaluate = place.paths.metrics("evaluate")
    if evaluate.is_file() and len(rows) == len(STAGE_TASKS):
        test = read_json(evaluate)
        main = MAIN[test["task"]]
        value, low, high = (f"{test[key]:.4f}" for key in main.keys)
        lines.insert(0, f"**Test {main.title} {value}** ({low} to {high})\n")
    if changes.sentence:
        lines.insert(0, f"{changes.sentence}\n")
    if outcome is not None:
        create_table_artifact(table=outcome.verdict.rows(), key="gate", description=outcome.sentence())
        lines.insert(0, f"**{outcome.sentence()}**\n")
        lines += ["", account.checks_table(outcome.verdict)]
    create_markdown_artifact(markdown="\n".join(lines), key="summary", description="What came of it")
