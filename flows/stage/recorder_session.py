"""What the recorder writes to MLflow for one stage, from its start to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from graft.tasks.common.core.record import Record
from graft.tasks.environment import FLOW_RUN, PARENT

from ..registry.registering import register_model
from ..tracking.run_table import log_pictures
from ..tracking.tracker import VERSION, Tracker


class StageRecord:
    """What the recorder does for one stage, call by call."""

    def __init__(self, root: Path, holder: psutil.Process) -> None:
        self._root, self._holder = root, holder
        self._run = self._parent = self._stage = ""
        self._flows_own = False

    def start(
        self, stage: str, params: Mapping[str, Any], process_key: str, begun: float, flow: Mapping[str, str]
    ) -> dict[str, str]:
        """Opens the stage's run below its parent (the flow's, if named); returns the ids of both."""
        self._tracker, self._stage = Tracker(self._root, flow), stage
        self._flows_own = PARENT in flow  # the flow opened the parent and ends it
        self._parent = flow.get(PARENT) or self._tracker.parent(self._holder)
        self._run = self._tracker.start_stage(stage, self._parent, params, process_key, begun)
        return {
            "run_id": self._run,
            "parent_run_id": self._parent,
            "experiment_id": self._tracker.experiment_id,
            "flow_run_id": flow.get(FLOW_RUN, ""),
        }

    def register(self, name: str) -> dict[str, Any]:
        """Makes models/package a version of `name` and the challenger; returns what runs/register.json keeps of it."""
        registration = register_model(self._tracker, self._run, name)
        self._tracker.client.set_tag(self._run, VERSION, registration.version)
        return {key: getattr(registration, key) for key in ("name", "version", "run_id", "digest")}

    def log(self, record: Record, metrics: Mapping[str, Any], data_hash: str) -> None:
        self._tracker.log_record(self._run, record, metrics, data_hash)
        log_pictures(self._tracker.client, (self._run, self._parent), self._stage, record.files)

    def finish(self, inputs: Mapping[str, str], outputs: Mapping[str, str], found: Mapping[str, str]) -> None:
        """The stage is done; `found` has the earlier hashes of inputs that it has rewritten."""
        self._tracker.log_hashes(self._run, inputs, outputs, found)
        self._tracker.carry(self._parent, {self._stage: self._run})
        self._end("FINISHED")

    def fail(self, reason: str) -> None:
        """The stage has failed."""
        if self._run:
            self._end("FAILED", reason)

    def abandon(self) -> None:
        """The stage hung up; if it had not ended, it was killed."""
        if self._run:
            self._end("KILLED", "the stage's process was killed")

    def _end(self, status: str, reason: str = "") -> None:
        run, self._run = self._run, ""
        self._tracker.end(run, status, reason)
        if not self._flows_own:
            self._tracker.close_parent(self._parent, status, tested=self._stage in ("evaluate", "register"))
