"""`graft why`: why the stages of a recorded execution ran, from their runs in MLflow and the previous ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES
from graft.tasks.common.core.sections import read_params
from graft.tasks.common.data.task import Task

from ..registry.models import find_version
from ..runtime.params import model_name
from ..status.image_diff import ImageChanges, images_between
from ..status.reasons import Reason, changed_keys, reasons_of, sentence_of, some
from ..tracking.artifacts import fetched_artifacts
from ..tracking.pages import all_pages
from ..tracking.store import has_store
from ..tracking.tracker import REUSED, Tracker
from ..versioning.dvc import images_of

SHORTEST = 8
"""The minimum number of digits that identify a run."""

DEP, FOUND = "dvc.dep.", "dvc.found."
"""Prefix of the tags with the hashes of dependencies."""

DID = {"FINISHED": "ran", "FAILED": "failed", "KILLED": "was killed"}


@dataclass(frozen=True)
class StageExplanation:
    """One stage of an execution.

    Attributes:
        did: `ran`, `failed`, `was killed`, `runs` or `reused`.
        run_id: its run, or the earlier run whose results were reused.
        before: the run that it is compared with; empty if there is none.
        reasons: the differences between the two.
        note: a remark beside the reasons.
    """

    stage: str
    did: str
    run_id: str
    before: str = ""
    reasons: tuple[Reason, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Explanation:
    """An execution of the pipeline: its parent run, and its stages in order.

    Attributes:
        images: what was new in data/raw; None if nothing was.
    """

    run_id: str
    name: str
    sentence: str
    stages: tuple[StageExplanation, ...]
    images: ImageChanges | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(root: Path, wanted: str = "") -> Explanation:
    """Which stages an execution of the pipeline ran, and why.

    Args:
        wanted: a run's id or its first digits, of a stage or of a whole execution; or a version of the registered
            model, an alias, or either after `NAME/`. By default the last execution of this project.

    Raises:
        GraftError: there is no such run, or it is not a run of the pipeline.
    """
    if not has_store(root):
        raise GraftError("nothing has been recorded for this project", todo="run `graft repro`")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the fetched files are small
    tracker = Tracker(root)
    parent = _execution(tracker, wanted)
    reader = _Reader(tracker, root)
    ran, tags = tracker.children(parent.info.run_id), parent.data.tags
    stages = tuple(
        reader.stage(stage, ran[stage])
        if stage in ran
        else StageExplanation(stage, "reused", tags[f"{REUSED}{stage}"], note="nothing that it depends on changed")
        for stage in STAGES
        if stage in ran or f"{REUSED}{stage}" in tags
    )
    if not stages:
        raise GraftError("this is not a run of the pipeline", got=f"{parent.info.run_name} ({parent.info.run_id})")
    return Explanation(parent.info.run_id, parent.info.run_name, _sentence(stages), stages, reader.images)


def _sentence(stages: tuple[StageExplanation, ...]) -> str:
    reasons = {stage.stage: stage.reasons for stage in stages if stage.reasons}
    if {reason.kind for each in reasons.values() for reason in each} == {"never_run"}:
        return "the first run" if len(reasons) == len(stages) else f"the first run of {some(reasons)}"
    return sentence_of(reasons) or "nothing had changed"


# Which execution


def _execution(tracker: Tracker, wanted: str) -> Run:
    """The parent run of the wanted run or version."""
    digits = wanted.lower()
    if not wanted:
        return _last(tracker)
    if len(digits) >= SHORTEST and set(digits) <= set("0123456789abcdef"):
        return _parent(tracker, _by_digits(tracker, digits))
    name, _, version = wanted.replace("@", "/").rpartition("/")
    name = name or model_name(tracker.paths.root)
    return _parent(tracker, tracker.client.get_run(find_version(tracker, name, version).run_id))


def _parent(tracker: Tracker, run: Run) -> Run:
    above = run.data.tags.get("mlflow.parentRunId")
    return tracker.client.get_run(above) if above else run


def _by_digits(tracker: Tracker, digits: str) -> Run:
    found = tracker.client.search_runs([tracker.experiment_id], f"attributes.run_id LIKE '{digits}%'", max_results=3)
    if len(found) == 1:
        return found[0]
    raise GraftError(
        "several run ids begin with these digits" if found else "no run has an id that begins with these digits",
        got=digits,
        allowed=", ".join(run.info.run_id for run in found) or "a run's id in MLflow, or a version of the model",
        todo="give more digits" if found else "`graft why` without a name explains the last run",
    )


def _last(tracker: Tracker) -> Run:
    """The newest of the runs that made this project's results."""
    files = [tracker.paths.run(stage) for stage in STAGES]
    ids = {str(read_json(file)["parent_run_id"]) for file in files if file.is_file()}
    if not ids:
        raise GraftError("no stage has run in this project", todo="run `graft repro`, or name a run")
    found = [run for run_id in ids for run in _if_there(tracker, run_id)]
    if not found:
        raise GraftError(
            "this MLflow store has none of the runs that made the results in this project",
            got=redacted(tracker.uri),
            todo="set MLFLOW_TRACKING_URI to the store that recorded them, or name a run",
        )
    return max(found, key=lambda run: run.info.start_time)


def _if_there(tracker: Tracker, run_id: str) -> list[Run]:
    try:
        return [tracker.client.get_run(run_id)]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []


# Why it ran


class _Reader:
    """Compares a stage's run with the one before it."""

    def __init__(self, tracker: Tracker, root: Path) -> None:
        self._tracker, self._root = tracker, root
        self._task: Task = _section(root, "head").get("task", "classification")
        self.images: ImageChanges | None = None

    def stage(self, stage: str, run: Run) -> StageExplanation:
        did, run_id = DID.get(run.info.status, "runs"), run.info.run_id
        before = next(self._earlier(stage, run), None)
        if before is None:
            return StageExplanation(stage, did, run_id, reasons=(Reason("never_run", f"{stage} never ran before"),))
        reasons = self._reasons(before, run)
        note = "" if reasons else "it was forced, or its outputs were missing"
        if not _deps(run):
            note = "its inputs are not known, because it did not finish"
        return StageExplanation(stage, did, run_id, before.info.run_id, reasons, note)

    def _reasons(self, before: Run, run: Run) -> tuple[Reason, ...]:
        old, new = _deps(before), {**_deps(run), **_deps(run, FOUND)}
        if not new:
            old = {}
        elif before.data.tags.get("dvc.code") != run.data.tags.get("dvc.code"):
            old, new = {**old, **self._code(before)}, {**new, **self._code(run)}
        return reasons_of(old, new, self._images, changed_keys(before.data.params, run.data.params))

    def _images(self, before: str, now: str) -> ImageChanges:
        found = images_between(self._root, before, now, self._task)
        self.images = self.images or found
        return found

    def _code(self, run: Run) -> dict[str, str]:
        """File, or folder, of code -> hash; empty if the run did not record it."""
        with fetched_artifacts(self._tracker, run.info.run_id, "dvc.json") as folder:
            deps = read_json(folder / "dvc.json")["deps"] if folder is not None else {}
        return {path: digest for path, digest in deps.items() if path.startswith("tasks")}

    def _earlier(self, stage: str, run: Run) -> Iterator[Run]:
        """Runs of the stage in this project that had finished when this one began, the newest first."""
        query = (
            f"tags.`graft.stage` = '{stage}' and attributes.status = 'FINISHED' "
            f"and attributes.start_time < {run.info.start_time}"
        )
        newest = ["attributes.start_time DESC"]
        search, experiments = self._tracker.client.search_runs, [self._tracker.experiment_id]
        for found in all_pages(search, experiments, query, max_results=50, order_by=newest):
            if self._is_of_same_project(found, run):
                yield found

    def _is_of_same_project(self, other: Run, run: Run) -> bool:
        """A store may hold several projects' runs: of another git repository, or of entirely different images.

        A project may get its `origin`, or its first commit, between two runs.
        """
        theirs, ours = (one.data.tags.get("mlflow.source.git.repoURL", "") for one in (other, run))
        commits = [one.data.tags.get("git.commit", "none") for one in (other, run)]
        if theirs and theirs != ours:
            return False
        before, now = (images_of(self._root, _deps(one).get("data/raw", "")) for one in (other, run))
        known = before is not None and now is not None
        shared = known and not {*(before or {}).values()}.isdisjoint((now or {}).values())
        if known and not shared:
            return False
        return bool(theirs) or commits[0] == commits[1] or self._knows(commits[0]) or (commits[0] == "none" and shared)

    def _knows(self, commit: str) -> bool:
        words = ["git", "-C", str(self._root), "cat-file", "-e", commit]
        return subprocess.run(words, capture_output=True).returncode == 0


def _deps(run: Run, kind: str = DEP) -> dict[str, str]:
    """Dependency -> hash, without code; empty for a run that did not finish. `FOUND`: of those that the stage has
    rewritten, as it found them."""
    tags = run.data.tags
    return {name.removeprefix(kind): digest for name, digest in tags.items() if name.startswith(kind)}


def _section(root: Path, name: str) -> dict[str, Any]:
    return dict(read_params(root / "params.yaml").get(name) or {})
