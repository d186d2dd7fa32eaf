"""Records runs in MLflow: one parent run per pipeline execution, one nested run per stage. Only this module and the
registry write to MLflow, and no stage reads from it."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError, TransientError
from graft.tasks.common.core.files import read_json, sha256
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.record import Record
from graft.tasks.common.data.task import main_in
from graft.tasks.environment import FLOW_RUN, FLOW_RUN_URL, command_words

from ..runtime import processes
from ..versioning.git import GitState, git_state
from . import run_table
from .dataset import dataset_entity
from .installed import ENVIRONMENT, environment_text
from .names import flatten, mlflow_name
from .patience import be_patient, first_request, reason_of, server_may_recover
from .reuse import asked_for, reused_stages
from .sqlite_store import check_writable, ensure_store
from .store import run_page, sqlite_file, tracking_uri

INVOCATION = "graft.invocation"
"""The tag of a parent run with the key of its process."""


ASKED = "graft.asked"
"""The tag of a parent run that lists the stages which the execution was asked to bring up to date."""


REUSED = "graft.reused."
"""Before a stage's name: the tag of a parent run that names the earlier run whose result was reused."""


VERSION = "graft.version"
"""The tag of a run of `register` with the version that its package is; an earlier run may have registered it."""


KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""The tag of an experiment by which MLflow chooses its pages, and its value for training rather than for GenAI."""


GUESSED = ("", "no_inferred_type", "genai_development_inferred", "custom_model_development_inferred")
"""Values of that tag that MLflow's pages guess while an experiment has no runs."""


PACKAGES = ("albumentations", "dvc", "graft", "mlflow", "numpy", "openvino", "pillow", "prefect", "timm", "torch")


_OUTCOMES = {"FINISHED": "ran", "FAILED": "failed", "KILLED": "killed", "RUNNING": "running", "SCHEDULED": "running"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "graft")


class Tracker:
    """A project's place in MLflow.

    Args:
        root: the project's.
        flow: the variables of the flow run, if there is one.

    Raises:
        TransientError: the tracking server does not answer, or another process has locked the store.
        GraftError: the server refuses, or the store cannot be used.
    """

    def __init__(self, root: Path, flow: Mapping[str, str] | None = None) -> None:
        self._flow = flow or {}
        # A run id that another program left in the environment would silently be continued.
        os.environ.pop("MLFLOW_RUN_ID", None)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where `--json` is printed
        self.paths, self.uri = Paths(root), tracking_uri(root)
        ensure_store(root)
        self.client = MlflowClient(self.uri)
        try:
            with first_request():
                self.experiment_id = self._experiment()
        except MlflowException as error:
            kind = TransientError if server_may_recover(error) else GraftError
            raise kind(
                "MLflow cannot be reached",
                got=redacted(f"{self.uri}: {reason_of(error)}"),
                todo="start the server, correct MLFLOW_TRACKING_URI, or unset it to record inside the project",
            ) from error
        be_patient()

    def _experiment(self) -> str:
        name = experiment_name()
        found = self.client.get_experiment_by_name(name)
        if found:
            if found.tags.get(KIND, "") in GUESSED:
                self.client.set_experiment_tag(found.experiment_id, KIND, TRAINING)
            return str(found.experiment_id)
        store = self.uri.removeprefix("sqlite:///")
        place = Path(store).with_name("mlartifacts").resolve().as_uri() if store != self.uri else None
        return str(self.client.create_experiment(name, artifact_location=place, tags={KIND: TRAINING}))

    # Parent runs

    def parent(self, process: psutil.Process) -> str:
        """The run of the flow run, otherwise of the pipeline execution `process`; created if there is none yet."""
        self.require_writable()
        key = processes.key(process)
        run_id = self._parent_of(key)
        if run_id:
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        given = [word for word in command_words(process) if word != "--wait-for-lock"]  # which Graft adds
        words = redacted(" ".join(given))
        tags = {INVOCATION: key, ASKED: ", ".join(asked_for(self.paths.root, given))}
        return self.new_parent(f"{words} · {datetime.now():%Y-%m-%d %H:%M}", tags)

    def _parent_of(self, key: str) -> str:
        """The newest parent run of the process with this key, or of the flow run if there is one; empty if none."""
        query = f"tags.`{INVOCATION}` = '{key}'"
        if FLOW_RUN in self._flow:
            query = f"tags.`prefect.flow_run_id` = '{self._flow[FLOW_RUN]}' and tags.`{INVOCATION}` LIKE '%'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else ""

    def require_writable(self) -> None:
        file = sqlite_file(self.paths.root)
        if file is not None:
            check_writable(file)

    def new_parent(self, name: str, tags: Mapping[str, str]) -> str:
        """The run of a new execution, with a list of all installed packages."""
        run_id = self._new_run(name, tags)
        self.client.log_text(run_id, environment_text(), ENVIRONMENT)
        return run_id

    def _new_run(self, name: str, tags: Mapping[str, str]) -> str:
        self.require_writable()
        self.mark_crashed_runs()
        git = git_state(self.paths.root)
        run = self.client.create_run(self.experiment_id, tags={**self._common_tags(git), **tags}, run_name=name)
        return str(run.info.run_id)

    @contextmanager
    def recorded(self, name: str, parent_id: str = "") -> Iterator[str]:
        """A run of this process that is no stage's, below another run if one is given; it ends with the block."""
        above = {"mlflow.parentRunId": parent_id} if parent_id else {}
        run_id = self._new_run(name, {"graft.process": processes.key(processes.me()), **above})
        try:
            yield run_id
        except BaseException as error:
            self.end(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", str(error))
            raise
        self.end(run_id, "FINISHED")

    def mark_crashed_runs(self) -> None:
        """Marks runs as killed whose process on this machine has ended, so that none stays running for ever."""
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'", max_results=100):
            key = run.data.tags.get("graft.process") or run.data.tags.get(INVOCATION, "")
            if key and processes.key_runs(key) is False:
                self.client.set_terminated(run.info.run_id, "KILLED")

    def close_parent(self, run_id: str, status: str, *, tested: bool) -> None:
        """Ends the parent for now: a later stage of the same execution opens it again.

        Args:
            tested: whether metrics/evaluate.json belongs to this execution, not to an earlier one.
        """
        self._log_lock(run_id)
        self._describe(run_id, self.children(run_id), {}, "did not run")
        self._end_parent(run_id, status, tested=tested)

    def finish_parent(self, run_id: str, status: str, reached: Collection[str], account: str = "") -> None:
        """Ends the parent of an execution that has ended, and names the earlier results that it reused.

        Args:
            reached: the stages that are up to date, whether they ran or not.
            account: Markdown for the beginning of the run's description.
        """
        self._log_lock(run_id)
        self._credit(run_id, reached, "not reached", account)
        self._end_parent(run_id, status, tested=True)

    def _end_parent(self, run_id: str, status: str, *, tested: bool) -> None:
        self._name_data(run_id)
        if tested and status == "FINISHED" and self.paths.metrics("evaluate").is_file():
            test = read_json(self.paths.metrics("evaluate"))
            for name in main_in(test).keys:
                if test[name] is not None:  # unknown: an anomaly test without defects
                    self.client.log_metric(run_id, f"test_{name}", test[name])
        self.client.set_terminated(run_id, status)

    def settle(self, key: str) -> str:
        """Records what is known only after the execution of this process: DVC has written dvc.lock by then.

        Returns the run of that execution; empty if there is none.
        """
        self.mark_crashed_runs()
        run_id = self._parent_of(key)
        if run_id:
            self._log_lock(run_id)
            asked = self.client.get_run(run_id).data.tags.get(ASKED, ", ".join(STAGES)).split(", ")
            self._credit(run_id, asked, "not asked for")
        return run_id

    def _credit(self, run_id: str, asked: Collection[str], others: str, account: str = "") -> None:
        """Names the earlier runs whose results an execution reused, by the dvc.lock at its end."""
        ran = self.children(run_id)
        reused = reused_stages(self.paths.root, asked, {stage: run.info.status for stage, run in ran.items()})
        for stage, earlier in reused.items():
            self.client.set_tag(run_id, f"{REUSED}{stage}", earlier)
        self.carry(run_id, reused)
        self._describe(run_id, ran, reused, others, asked, account)

    def _log_lock(self, run_id: str) -> None:
        lock = self.paths.root / "dvc.lock"
        if lock.is_file():
            self.client.set_tag(run_id, "dvc.lock.sha256", sha256(lock))
            self.client.log_artifact(run_id, str(lock))

    def children(self, parent_id: str) -> dict[str, Run]:
        """Stage -> its run below the parent, the newest if there are several."""
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'", order_by=["attributes.start_time ASC"]
        )
        return {run.data.tags.get("graft.stage", ""): run for run in runs}

    def carry(self, parent_id: str, runs: Mapping[str, str]) -> None:
        """Copies to the parent what these stages contribute to the run table; runs of another store are left out."""
        parent = self.client.get_run(parent_id)
        for stage, run_id in runs.items():
            run = self._run(run_id)
            if run is not None:
                run_table.carry(self.client, parent, stage, run, self.paths)

    def _run(self, run_id: str) -> Run | None:
        found = self.client.search_runs([self.experiment_id], f"attributes.run_id = '{run_id}'", max_results=1)
        return found[0] if found else None

    def _describe(
        self,
        parent_id: str,
        ran: Mapping[str, Run],
        reused: Mapping[str, str],
        others: str,
        asked: Collection[str] = (),
        account: str = "",
    ) -> None:
        """The parent's description: each stage's own run, or the earlier run whose result was reused.

        Args:
            others: the text for stages that are not among `asked`.
        """
        lines = [*([account, ""] if account else []), "| stage | run | |", "| --- | --- | --- |"]
        for stage in STAGES:
            if stage in ran:
                run = ran[stage].info
                lines.append(f"| {stage} | {self.link(run.run_id, run.run_id[:8])} | {_OUTCOMES[run.status]} |")
            elif stage in reused:
                link = self.link(reused[stage], reused[stage][:8])
                lines.append(f"| {stage} | {link} | reused: nothing it depends on changed |")
            else:
                lines.append(f"| {stage} | | {'not reached' if stage in asked else others} |")
        self.client.set_tag(parent_id, "mlflow.note.content", "\n".join(lines))

    def _name_data(self, parent_id: str) -> None:
        """Links the images that the first stage read to the parent too."""
        seen = self.paths.run("preprocess")
        if not seen.is_file() or self.client.get_run(parent_id).inputs.dataset_inputs:
            return
        run = self._run(read_json(seen)["run_id"])
        datasets = run.inputs.dataset_inputs if run is not None else []
        if datasets:
            self.client.log_inputs(parent_id, datasets=[DatasetInput(each.dataset, []) for each in datasets])

    def link(self, run_id: str, text: str) -> str:
        return f"[{text}]({run_page(self.experiment_id, run_id)})"

    # Stage runs

    def start_stage(self, stage: str, parent_id: str, params: Mapping[str, Any], process_key: str, begun: float) -> str:
        """Starts the stage's run; `begun` is the start of its process in seconds since 1970."""
        return self._child(stage, parent_id, params, {"graft.stage": stage, "graft.process": process_key}, begun)

    def start_candidate(self, name: str, parent_id: str, params: Mapping[str, Any], process_key: str) -> str:
        """Starts the run of one backbone of `graft rank`."""
        tags = {"graft.candidate": name, "graft.process": process_key}
        return self._child(name, parent_id, params, tags, time.time())

    def _child(
        self, name: str, parent_id: str, params: Mapping[str, Any], tags: Mapping[str, str], begun: float
    ) -> str:
        tags = {**self._common_tags(git_state(self.paths.root)), "mlflow.parentRunId": parent_id, **tags}
        run = self.client.create_run(self.experiment_id, start_time=int(begun * 1000), tags=tags, run_name=name)
        run_id = str(run.info.run_id)
        self.client.log_batch(
            run_id, params=[Param(mlflow_name(key), str(value)[:6000]) for key, value in flatten(params).items()]
        )
        return run_id

    def log_record(self, run_id: str, record: Record, metrics: Mapping[str, Any], data_hash: str) -> None:
        """Logs numbers as metrics, texts as tags, curves by step, files as artifacts and the images as a dataset."""
        now = int(time.time() * 1000)
        flat = flatten(metrics)
        points = [
            Metric(mlflow_name(name), float(value), now, 0)
            for name, value in flat.items()
            if isinstance(value, int | float)
        ]
        points += [
            Metric(mlflow_name(name), float(value), now, step)
            for name, curve in record.curves.items()
            for step, value in curve
        ]
        words = {name: value for name, value in flat.items() if isinstance(value, str)}
        tags = [RunTag(mlflow_name(name), str(value)[:5000]) for name, value in {**words, **record.facts}.items()]
        for start in range(0, len(points), 1000):
            self.client.log_batch(run_id, metrics=points[start : start + 1000])
        for start in range(0, len(tags), 100):
            self.client.log_batch(run_id, tags=tags[start : start + 100])
        for file in record.files:
            self.client.log_artifact(run_id, str(file))
        if record.dataset is not None and data_hash:
            entity = dataset_entity(record.dataset, data_hash, git_state(self.paths.root), str(self.paths.root))
            self.client.log_inputs(run_id, datasets=[DatasetInput(entity, [])])

    def log_hashes(
        self, run_id: str, inputs: Mapping[str, str], outputs: Mapping[str, str], found: Mapping[str, str]
    ) -> None:
        """Logs DVC's hashes: of the data as tags, of the code as one tag, and all of them as dvc.json; `found` has the
        earlier hashes of inputs that the stage has rewritten."""
        data = {path: digest for path, digest in inputs.items() if not path.startswith("tasks")}
        code = sorted((path, digest) for path, digest in inputs.items() if path not in data)
        tags = [RunTag("dvc.code", hashlib.md5(repr(code).encode(), usedforsecurity=False).hexdigest())]
        tags += [RunTag(f"dvc.dep.{path}", digest) for path, digest in data.items()]
        tags += [RunTag(f"dvc.found.{path}", digest) for path, digest in found.items()]
        tags += [RunTag(f"dvc.out.{path}", digest) for path, digest in outputs.items()]
        self.client.log_batch(run_id, tags=tags)
        self.client.log_dict(run_id, {"deps": dict(inputs), "outs": dict(outputs)}, "dvc.json")

    def end(self, run_id: str, status: str, reason: str = "") -> None:
        if reason:
            self.client.set_tag(run_id, "mlflow.note.content", reason)
        self.client.set_terminated(run_id, status)

    def _common_tags(self, git: GitState) -> dict[str, str]:
        tags = {
            "mlflow.user": _user(),
            "mlflow.source.name": "graft",
            "mlflow.source.type": "PROJECT",
            "mlflow.source.git.commit": git.commit,
            "mlflow.source.git.branch": git.branch,
            "mlflow.source.git.repoURL": git.origin,
            "git.commit": git.commit or "none",
            "git.dirty": str(git.dirty).lower(),
            "python": sys.version.split()[0],
            "machine": socket.gethostname(),
            **{f"package.{name}": version(name) for name in PACKAGES},
        }
        if FLOW_RUN in self._flow:
            url = self._flow.get(FLOW_RUN_URL, "")
            tags |= {"prefect.flow_run_id": self._flow[FLOW_RUN], "prefect.flow_run_url": url}
        return {key: value for key, value in tags.items() if value}
