"""The steps of the flow `retrain` besides the stages, in the order in which data move; each is a Prefect task."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from graft.tasks.common.core.errors import GraftError, may_pass
from graft.tasks.pipeline import StageFailed, run_dvc

from ..gate.champion import Champion
from ..gate.contest import Check
from ..gate.verdict import Verdict, incomparable, judge, unopposed
from ..labelling.night import bring_pool, choose_to_ask, fetch_results, request, rows_of
from ..labelling.pool import TRACKED as POOL
from ..registry import ledger, looks
from ..registry.models import CHAMPION, aliases_of, fetched_package, find_version
from ..runtime.params import RetrainParams, load_params, model_name
from ..status.pending import Changes, pending, pending_here
from ..tracking.patience import server_may_recover
from ..tracking.tracker import Tracker
from ..versioning.dvc import dvc, fetch_object, is_cached, raw_hash
from ..versioning.dvc_config import dvc_remote
from ..versioning.entries import refuse_what_dvc_cannot_hash
from ..versioning.losses import require_no_loss
from . import send_notice as recipients
from .apply_verdict import decide
from .new_images import bring_new, inbox_of
from .outcome import Outcome, commit_message, describe_version
from .publish import publish
from .working_copy import WorkingCopy
from .worktree import committed_params, prepare


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    failure = state.result(raise_on_failure=False)
    kind = failure.kind if isinstance(failure, StageFailed) else ""
    return kind == "io" or may_pass(failure) or (isinstance(failure, Exception) and server_may_recover(failure))


def _step(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A task of the flow, which is tried again after a failure that may be temporary."""
    return task(
        name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_may_pass
    )


@_step("sync")
def sync(project: str, unattended: bool, time_limit_minutes: float) -> WorkingCopy:
    """Gets the current data and code. In the checkout DVC looks at the images; unattended, the worktree is brought to
    the newest commit, and new images come from `retrain.source`."""
    root = Path(project)
    if not unattended:
        if (root / "data" / "raw.dvc").is_file():
            require_no_loss(root)
            refuse_what_dvc_cannot_hash(root / "data" / "raw")
            run_dvc(["repro", "data/raw.dvc"], root, time_limit_minutes, {}, "sync")
        return WorkingCopy(root, root)
    workspace = prepare(root, committed_params(root))
    copy = WorkingCopy(root, workspace.root, workspace)
    params = copy.params()[0]
    get_run_logger().info("%s", bring_new(workspace, params))
    brought = bring_pool(copy.root, inbox_of(workspace, params), params.settle_seconds)
    if brought.words():
        get_run_logger().info("%s", brought.words())
    copy = replace(copy, brought=brought)
    digest = raw_hash(copy.root)
    if digest and dvc_remote(copy.root) and not is_cached(copy.root, digest):
        fetch_object(copy.root, digest, "the list of the images")  # by which the plan says which are new
    return copy


@_step("plan")
def plan(copy: WorkingCopy) -> Changes:
    """What would run, and why."""
    changes = pending_here(copy.root) if copy.workspace is None else pending(copy.root)
    get_run_logger().info("%s", "no stage has changed" if changes.empty else changes.sentence)
    return changes


@_step("fetch")
def fetch(copy: WorkingCopy) -> None:
    """Brings the images, and weights that are under DVC, into the worktree."""
    tracked = sorted((copy.root / "data").rglob("*.dvc"))
    files = [name for file in tracked if (name := str(file.relative_to(copy.root))) != POOL]  # no stage reads the pool
    if files:
        verb = "pull" if dvc_remote(copy.root) else "checkout"
        dvc(copy.root, [verb, "--quiet", "--force", *files], "bringing the images into the worktree")


@_step("champion")
def fetch_champion(copy: WorkingCopy, kept: ExitStack) -> Champion | None:
    """The champion's package, verified; None if there is no champion, or if it is this run's own package.

    Args:
        kept: what removes the package when the run needs it no longer.
    """
    tracker, name = Tracker(copy.root), model_name(copy.root)
    if aliases_of(tracker, name).get(CHAMPION, copy.registered().version) == copy.registered().version:
        return None
    version = find_version(tracker, name, CHAMPION)
    return Champion.load(kept.enter_context(fetched_package(tracker, version)), version)


@_step("check")
def check(copy: WorkingCopy, champion: Champion | None) -> tuple[Check, ...]:
    """What the features say about the new images."""
    from ..gate.data_checks import data_checks

    return data_checks(copy.paths, champion)


@_step("gate")
def gate(copy: WorkingCopy, champion: Champion | None, data: tuple[Check, ...]) -> Verdict:
    """Compares champion and challenger on the current test images."""
    from graft.tasks.common.data.feature_set import read_feature_set

    from ..gate.comparison import contest, why_incomparable
    from ..gate.decoders import why_not

    if champion is None:
        return unopposed(data, "there is nothing to compare it with")
    pack, params = read_feature_set(copy.paths.features), load_params(copy.paths.params)
    why = why_incomparable(champion, pack) or why_not(champion.package, copy.paths)
    if why:
        return incomparable(data, why)
    keys = list(pack.index["image_id"].iloc[pack.rows("test")])
    verdict = judge(contest(copy.paths, champion, params, _earlier_looks(copy, keys)), data, params.gate)
    return replace(verdict, tested=looks.sampled(keys))


def _earlier_looks(copy: WorkingCopy, keys: list[str]) -> int:
    registered = copy.registered()
    return looks.earlier_looks(ledger.entries(Tracker(copy.root), registered.name), keys, str(registered.version))


@_step("promote")
def promote(copy: WorkingCopy, verdict: Verdict, parent: str, still_ours: Callable[[], None]) -> Outcome:
    """Makes the challenger the champion, leaves it waiting or refuses it, and writes that into the ledger."""
    tracker, registered = Tracker(copy.root), copy.registered()
    version = find_version(tracker, registered.name, registered.version)
    with ledger.locked(tracker, version.name):
        still_ours()
        outcome, kept = decide(copy, verdict, parent, tracker, version)
    if kept:
        tracker.client.log_artifact(parent, str(copy.root / ledger.FILE))
    describe_version(tracker, version, outcome)
    get_run_logger().info("%s", outcome.sentence())
    return outcome


@_step("push")
def push(copy: WorkingCopy, changes: Changes, outcome: Outcome, parent: str, still_ours: Callable[[], None]) -> str:
    """Pushes the data, then the commit, whose hash the MLflow run and the version get as a tag."""
    assert copy.workspace is not None
    commit = publish(copy.workspace, commit_message(changes, outcome), still_ours)
    tracker = Tracker(copy.root)
    tracker.client.set_tag(parent, "git.result", commit)
    if copy.made_by()[0] == parent:
        tracker.client.set_model_version_tag(outcome.model, outcome.version, "git.result", commit)
    get_run_logger().info("pushed as %s", commit[:12])
    return commit


@_step("notify")
def notify(places: list[str], notice: recipients.Notice) -> None:
    """Sends the notice; a recipient that cannot be reached fails nothing."""
    for problem in recipients.notify(places, notice):
        get_run_logger().error("%s", problem)


@_step("pool")
def publish_pool(copy: WorkingCopy, still_ours: Callable[[], None]) -> str:
    """Pushes the pool of images without a label, where no stage has changed."""
    assert copy.workspace is not None
    commit = publish(copy.workspace, f"Pool: {copy.brought.new:,} new images without a label", still_ours)
    get_run_logger().info("pushed as %s", commit[:12])
    return commit


@_step("ask")
def ask(copy: WorkingCopy, params: RetrainParams, made_here: bool) -> recipients.Notice | None:
    """Chooses the images whose labels would help most; None if the pool has none. A choice that fails fails nothing:
    what the run has made is pushed.

    Args:
        made_here: whether the stages have run in this run; if not, their results are fetched.
    """
    try:
        if not made_here:
            fetch_results(copy.root)
        asked = choose_to_ask(copy.root, copy.project, params.ask)
    except GraftError as error:
        get_run_logger().error("no images were chosen to be labelled: %s", error)
        return None
    if asked is None:
        return None
    title, text = request(asked, params.label_page or "")
    create_table_artifact(table=rows_of(asked), key="to-label", description=title)
    get_run_logger().info("%s", title)
    links = {"the label page": params.label_page} if params.label_page else {}
    facts = {"images": len(asked.table), "waiting": asked.waiting}
    return recipients.Notice("labels", f"{runtime.flow_run.name}: {title}", text, links, facts)
