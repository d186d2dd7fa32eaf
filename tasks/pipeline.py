"""The seven stages as Prefect tasks, in the order in which data flows. Import them into any flow of your own:

    from tasks.pipeline import preprocess, features, head, audit, finetune, evaluate, register

    @flow
    def mine(project: str) -> None:
        for stage in (preprocess, features, head, audit, finetune, evaluate, register):
            stage(project)

Each brings its stage up to date with DVC (`dvc repro -s`), in a process group of its own that is killed when the time
limit passes, the run is cancelled or the flow's process ends. No stage depends on this file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
from prefect import Task, get_run_logger, runtime, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext

from .common.core.errors import GraftError
from .common.core.files import read_json
from .common.core.paths import STAGES, Paths
from .common.core.progress import FAILURE, MARK, PROTOCOL
from .environment import FLOW_RUN, LEASH, own_python_first, process_key

GRACE = 10.0
"""Seconds between asking a stage's processes to end and killing them."""

DVC_CHATTER = (
    "Running stage",
    "> python -m",
    "Updating lock",
    "Generating lock",
    "Use `dvc push`",
    "To track",
    "To enable",
    "\tgit add",
    "\tdvc config",
    "Data and pipelines",
)
"""What DVC says at every run and nobody needs in a log."""

SAY_EVERY = 5.0
"""Seconds between two progress lines in the log; the artifact follows every second."""

KEPT = 40
"""Lines of a stage's output that an error message can quote from."""


class StageFailed(GraftError):
    """A stage did not end well; `kind` is `io`, `user`, `time` or `other`."""

    def __init__(self, stage: str, kind: str, got: str, todo: str) -> None:
        super().__init__(f"the stage {stage} failed", got=got, todo=todo)
        self.kind = kind


def may_be_tried_again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only a failure of input or output may pass by itself."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageFailed) and failure.kind == "io"


def _stage_task(stage: str) -> Task[..., dict[str, Any]]:
    @task(
        name=stage,
        task_run_name=stage,
        retries=2,
        retry_delay_seconds=30,
        retry_condition_fn=may_be_tried_again,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def bring_up_to_date(
        project: str, time_limit_minutes: float = 120.0, environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Runs the stage if DVC finds that something it depends on has changed.

        Args:
            project: the folder of dvc.yaml.
            time_limit_minutes: after which the stage's processes are killed.
            environment: variables for the stage's processes.

        Returns:
            `stage`, `ran` (false when DVC had nothing to do), `seconds`, and the `run_id` that holds the result.

        Raises:
            StageFailed: it did not end well.
        """
        return reproduce(stage, Path(project), time_limit_minutes, environment or {})

    return bring_up_to_date


preprocess = _stage_task("preprocess")
features = _stage_task("features")
head = _stage_task("head")
audit = _stage_task("audit")
finetune = _stage_task("finetune")
evaluate = _stage_task("evaluate")
register = _stage_task("register")

STAGE_TASKS: tuple[Task[..., dict[str, Any]], ...] = (preprocess, features, head, audit, finetune, evaluate, register)


def reproduce(stage: str, root: Path, time_limit_minutes: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """`dvc repro -s STAGE`, watched: its lines to the log, its progress to the page, its processes under control."""
    before = _run(root, stage)
    started = time.monotonic()
    run_dvc(["repro", "--single-item", *_targets(stage, root)], root, time_limit_minutes, environment, stage)
    now = _run(root, stage)
    ran = now != before
    if ran:
        get_run_logger().info("%s: done in %.1f s", stage, time.monotonic() - started)
    else:
        get_run_logger().info("%s: an earlier run's result still holds", stage)
    return {"stage": stage, "ran": ran, "seconds": round(time.monotonic() - started, 1), "run_id": now["run_id"]}


def _targets(stage: str, root: Path) -> list[str]:
    """The first stage has DVC look at the images first, as `dvc repro` of the whole pipeline does."""
    images = "data/raw.dvc"
    return [images, stage] if stage == STAGES[0] and (root / images).is_file() else [stage]


def _run(root: Path, stage: str) -> dict[str, str]:
    path = Paths(root).run(stage)
    return dict(read_json(path)) if path.is_file() else {}


def run_dvc(
    words: list[str], root: Path, time_limit_minutes: float, environment: Mapping[str, str], stage: str
) -> None:
    """Runs DVC in a process group that does not outlive this call.

    Raises:
        StageFailed: it failed, or the time limit passed.
    """
    lines: list[str] = []
    report = _progress_reporter(stage)
    failure = "other"
    with _process_group(["-m", "dvc", "--wait-for-lock", *words], root, environment, time_limit_minutes * 60) as (
        process,
        late,
    ):
        for line in process.stdout or ():
            if line.startswith(MARK):
                report(json.loads(line.removeprefix(MARK)))
            elif line.startswith(FAILURE):
                failure = line.removeprefix(FAILURE).strip()
            elif line.strip():
                lines = [*lines[-KEPT:], line.rstrip()]
                if not line.startswith(DVC_CHATTER):
                    get_run_logger().info("%s", line.rstrip())
        code = process.wait()
    if late.is_set():
        raise StageFailed(
            stage,
            "time",
            f"not done after {time_limit_minutes:g} minutes",
            "raise `retrain.time_limit_minutes`, or find out what hangs",
        )
    if code:
        raise StageFailed(
            stage, failure, _essence(lines), f"see the log above; `dvc repro {stage}` in {root} shows the same"
        )


@contextmanager
def _process_group(
    words: list[str], root: Path, environment: Mapping[str, str], seconds: float
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """A Python process and all that it starts; the event is set when the time is over and the group is being killed."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=root,
        env={**own_python_first(), "PYTHONUNBUFFERED": "1", PROTOCOL: "json", **_of_this_flow(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def end_it() -> None:
        late.set()
        _kill_group(process)

    timer = threading.Timer(seconds, end_it)
    timer.daemon = True
    timer.start()
    try:
        yield process, late
    finally:
        timer.cancel()
        _kill_group(process)


def _of_this_flow() -> dict[str, str]:
    """By these a stage's processes find the flow: they end with its process, and record under its run."""
    leash = {LEASH: process_key(psutil.Process())}
    return {**leash, FLOW_RUN: str(runtime.flow_run.id)} if runtime.flow_run.id else leash


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Asks the whole group to end, and kills what is left of it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and _group_lives(process):
            time.sleep(0.05)


def _group_lives(process: subprocess.Popen[str]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _essence(lines: list[str]) -> str:
    """The error as the stage said it, to the end of its indented lines, or the last line."""
    for place, line in enumerate(lines):
        if line.startswith("error: "):
            told = [line.removeprefix("error: "), *takewhile(lambda more: more.startswith("  "), lines[place + 1 :])]
            return "\n  ".join(told)[:2000]
    return lines[-1] if lines else "no message"


def _progress_reporter(stage: str) -> Callable[[dict[str, Any]], None]:
    """Shows a stage's progress as a Prefect artifact, made when there is something to show; now and then as a line."""
    if TaskRunContext.get() is None:
        return lambda state: None
    artifact: list[Any] = []
    said = time.monotonic()

    def report(state: dict[str, Any]) -> None:
        nonlocal said
        percent = 100.0 * state["done"] / max(state["total"], 1)
        text = f"{state['what']}: {state['done']:,} of {state['total']:,}, {state['rate']:,.1f}/s"
        if time.monotonic() - said >= SAY_EVERY:
            said = time.monotonic()
            get_run_logger().info("%s", text)
        if artifact:
            update_progress_artifact(artifact[0], progress=percent, description=text)
        else:
            artifact.append(create_progress_artifact(progress=percent, key=f"progress-{stage}", description=text))

    return report


assert tuple(stage_task.name for stage_task in STAGE_TASKS) == STAGES
