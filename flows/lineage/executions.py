"""A project's pipeline in MLflow: which runs belong to one execution, and which version it made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES

from ..registry.models import find_version
from ..runtime.params import model_name
from ..tracking.pages import all_pages
from ..tracking.store import has_store
from ..tracking.tracker import REUSED, VERSION, Tracker

RESULT = "git.result"
"""The tag of a version that names the commit with its dvc.lock."""

RUN_DIGITS = 8
"""The minimum number of digits that identify a run; fewer are the number of a version."""

PAGE = 1000
"""Runs or versions per request."""


@dataclass(frozen=True)
class Execution:
    """One run of the pipeline.

    Attributes:
        parent: the run of the whole execution.
        stages: the run of each stage, in the order of the data flow; for a reused stage, the earlier run.
        reused: the stages that did not run.
    """

    parent: Run
    stages: dict[str, Run]
    reused: frozenset[str]

    @property
    def raw(self) -> str:
        """DVC's hash of data/raw; empty if no stage recorded it."""
        return self.hash_of("data/raw")

    @property
    def manifest(self) -> str:
        """DVC's hash of data/manifest; empty if no stage recorded it."""
        return self.hash_of("data/manifest")

    def hash_of(self, path: str) -> str:
        """DVC's hash of what the stages read or wrote at a path."""
        tags = (run.data.tags.get(f"dvc.{way}.{path}") for run in self.stages.values() for way in ("out", "dep"))
        return next((digest for digest in tags if digest), "")

    @property
    def trained(self) -> bool:
        """Whether a model was trained in it, rather than reused."""
        return bool({"head", "finetune"} & (self.stages.keys() - self.reused))


class Records:
    """A project's runs and versions in MLflow, read once.

    Attributes:
        versions: of the registered model, the newest first.
        aliases: version -> its aliases.

    Raises:
        GraftError: nothing has been recorded, or the server does not answer.
    """

    def __init__(self, root: Path) -> None:
        name = model_name(root)
        if not has_store(root):
            raise GraftError("nothing has been recorded for this project", todo="run `graft repro`")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the fetched files are small
        self.root, self.name, self.tracker = root, name, Tracker(root)
        versions = all_pages(self.tracker.client.search_model_versions, f"name = '{name}'", max_results=PAGE)
        self.versions: list[ModelVersion] = sorted(versions, key=lambda version: -int(version.version))
        self.aliases = self._aliases()
        self._runs = {str(run.info.run_id): run for run in self._all_runs(self.tracker.experiment_id)}
        self._children: dict[str, dict[str, Run]] = {}
        for run in sorted(self._runs.values(), key=lambda run: run.info.start_time):
            tags = run.data.tags
            if "mlflow.parentRunId" in tags and "graft.stage" in tags:
                self._children.setdefault(tags["mlflow.parentRunId"], {})[tags["graft.stage"]] = run

    def _aliases(self) -> dict[str, list[str]]:
        if not self.versions:
            return {}
        found: dict[str, list[str]] = {}
        for alias, version in sorted(self.tracker.client.get_registered_model(self.name).aliases.items()):
            found.setdefault(str(version), []).append(alias)
        return found

    def _all_runs(self, experiment: str) -> Iterator[Run]:
        return all_pages(self.tracker.client.search_runs, [experiment], max_results=PAGE)

    def named(self, what: str) -> ModelVersion | None:
        """The version named by NAME@alias, NAME/3, an alias or a number; None if `what` is none of these.

        Raises:
            GraftError: `what` is of this form, but there is no such version.
        """
        aliased = {alias: version for version, of in self.aliases.items() for alias in of}
        if what in aliased:
            return next(version for version in self.versions if str(version.version) == aliased[what])
        short = what.isdecimal() and len(what) < RUN_DIGITS
        match = re.fullmatch(rf"{re.escape(self.name)}(@(?P<alias>.+)|/(?P<number>\d+))", what)
        if not short and match is None:
            return None
        return find_version(self.tracker, self.name, what if match is None else match["alias"] or match["number"])

    def runs(self) -> list[Run]:
        """All runs of the experiment, the newest first."""
        return sorted(self._runs.values(), key=lambda run: -run.info.start_time)

    def run(self, run_id: str) -> Run | None:
        """A run, also of another experiment; None if the store does not have it."""
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self.tracker.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None
        return self._runs[run_id]

    def execution(self, run_id: str) -> Execution | None:
        """The execution that a run is, or is a stage of; None if it is not a run of the pipeline."""
        run = self.run(run_id)
        parent = self.run(run.data.tags.get("mlflow.parentRunId", run_id)) if run is not None else None
        if parent is None:
            return None
        own = self._own(parent)
        before = {stage: self.run(parent.data.tags.get(f"{REUSED}{stage}", "")) for stage in STAGES if stage not in own}
        reused = {stage: run for stage, run in before.items() if run is not None}
        stages = {stage: {**own, **reused}[stage] for stage in STAGES if stage in own or stage in reused}
        return Execution(parent, stages, frozenset(reused)) if stages else None

    def _own(self, parent: Run) -> dict[str, Run]:
        """Stage -> its newest run under the parent."""
        run_id = str(parent.info.run_id)
        if run_id not in self._children and parent.info.experiment_id != self.tracker.experiment_id:
            of = [run for run in self._all_runs(parent.info.experiment_id) if _is_below(run, run_id)]
            self._children[run_id] = {run.data.tags["graft.stage"]: run for run in reversed(of)}
        return self._children.get(run_id, {})

    def of_version(self, version: ModelVersion) -> Execution | None:
        """The execution that made a version; None if the store does not have its run."""
        return self.execution(str(version.run_id or ""))

    def executions(self) -> Iterator[Execution]:
        """All executions that trained a model, the newest first."""
        for run in self.runs():
            if str(run.info.run_id) in self._children:
                found = self.execution(str(run.info.run_id))
                if found is not None and found.trained:
                    yield found

    def registered_by(self, execution: Execution) -> list[ModelVersion]:
        """The versions that an execution made, or whose package it reused."""
        register = execution.stages.get("register")
        if register is None:
            return []
        run_id, number = register.info.run_id, register.data.tags.get(VERSION, "")
        return [version for version in self.versions if version.run_id == run_id or str(version.version) == number]


def _is_below(run: Run, parent: str) -> bool:
    return bool(run.data.tags.get("mlflow.parentRunId") == parent and "graft.stage" in run.data.tags)
