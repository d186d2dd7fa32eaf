"""The seven stages as Prefect tasks, in the order in which data flows. Import them into any flow of your own:

    from graft.tasks.pipeline import preprocess, features, head, audit, finetune, evaluate, register

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
import re
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

from .code import record_code
from .common.core.errors import GraftError
from .common.core.files import read_json
from .common.core.paths import STAGES, Paths
from .common.core.progress import FAILURE, MARK, PROTOCOL
from .dvc_process import dvc_error, wait_for_dvc
from .environment import FLOW_RUN, LEASH, own_python_first, process_key

GRACE = 10.0
"""Seconds between asking a stage's processes to end and killing them."""

CHATTER = re.compile(
    r"Running stage|> python -P -m|Updating lock|Generating lock|Use `dvc push`|To track the changes"
    r"|To enable auto stag|\tgit add|\tdvc config|Data and pipelines are up to date"
    r"|(Stage )?'.*' (didn't change, skipping|is cached)|Having any troubles\?"
)
"""Starts of the lines that DVC prints at every run. A stage's line in the log says whether it ran."""

SAY_EVERY = 5.0
"""Seconds between two progress lines in the log; the artifact follows every second."""

KEPT = 40
"""Lines of a stage's output that an error message can quote from."""

BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
"""DVC's message that another command is at work."""

TRIES = 10
"""Attempts of a stage that another DVC command gets ahead of."""


class StageFailed(GraftError):
    """A stage failed; `kind` is `io`, `user`, `time` or `other`."""

    def __init__(self, stage: str, kind: str, got: str, todo: str) -> None:
        super().__init__(f"the stage {stage} failed", got=got, todo=todo)
        self.kind = kind


def may_be_tried_again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only an input/output failure may succeed when it is tried again."""
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
        project: str,
        time_limit_minutes: float = 120.0,
        environment: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Runs the stage if DVC finds that something it depends on has changed.

        Args:
            project: the folder of dvc.yaml.
            time_limit_minutes: after which the stage's processes are killed.
            environment: variables for the stage's processes.
            force: run it even if nothing has changed.

        Returns:
            `stage`, `ran` (false when DVC had nothing to do), `seconds`, and the `run_id` that holds the result.

        Raises:
            StageFailed: it failed.
        """
        return reproduce(stage, Path(project), time_limit_minutes, environment or {}, force)

    return bring_up_to_date


preprocess = _stage_task("preprocess")
features = _stage_task("features")
head = _stage_task("head")
audit = _stage_task("audit")
finetune = _stage_task("finetune")
evaluate = _stage_task("evaluate")
register = _stage_task("register")

STAGE_TASKS: tuple[Task[..., dict[str, Any]], ...] = (preprocess, features, head, audit, finetune, evaluate, register)


def reproduce(
    stage: str, root: Path, time_limit_minutes: float, environment: Mapping[str, str], force: bool = False
) -> dict[str, Any]:
    """`dvc repro -s STAGE`, with its output in the log and its progress on the run's page."""
    change = record_code(root)
    if change is not None:
        get_run_logger().info("%s", change)
    before = _run(root, stage)
    started = time.monotonic()
    words = ["--force", stage] if force else _targets(stage, root)
    run_dvc(["repro", "--single-item", *words], root, time_limit_minutes, environment, stage)
    now = _run(root, stage)
    ran, seconds = now != before, round(time.monotonic() - started, 1)
    get_run_logger().info("%s", f"ran in {seconds} s" if ran else "unchanged: the earlier result is reused")
    return {"stage": stage, "ran": ran, "seconds": seconds, "run_id": now["run_id"]}


def _targets(stage: str, root: Path) -> list[str]:
    """Before the first stage DVC looks at the images, as in `dvc repro` of the whole pipeline."""
    images = "data/raw.dvc"
    return [images, stage] if stage == STAGES[0] and (root / images).is_file() else [stage]


def _run(root: Path, stage: str) -> dict[str, str]:
    path = Paths(root).run(stage)
    return dict(read_json(path)) if path.is_file() else {}


def run_dvc(
    words: list[str], root: Path, time_limit_minutes: float, environment: Mapping[str, str], stage: str
) -> None:
    """Runs DVC in a process group that does not outlive this call, after any other DVC command of the project.

    Raises:
        StageFailed: it failed, or the time limit passed.
        GraftError: another DVC command of the project does not end.
    """
    for _ in range(TRIES):
        wait_for_dvc(root, get_run_logger().info)
        output = Output(stage)
        code, late = _run_once(words, root, time_limit_minutes, environment, output)
        if late or not code or not BUSY.search("\n".join(output.lines)):
            break  # else another command began at the same moment
    if late:
        raise StageFailed(
            stage,
            "time",
            f"not done after {time_limit_minutes:g} minutes",
            "raise `retrain.time_limit_minutes`, or find out what hangs",
        )
    if code:
        raise StageFailed(
            stage, output.failure, output.error(), f"see the log above; `dvc repro {stage}` in {root} shows the same"
        )


def _run_once(
    words: list[str], root: Path, time_limit_minutes: float, environment: Mapping[str, str], output: Output
) -> tuple[int, bool]:
    """DVC's exit code, and whether it was killed at the time limit."""
    words = ["-P", "-m", "dvc", "--wait-for-lock", *words]
    with _process_group(words, root, environment, time_limit_minutes * 60) as (process, late):
        for line in process.stdout or ():
            output.read(line.rstrip())
        return process.wait(), late.is_set()


class Output:
    """The output of a stage, line by line: progress to the run's page, the rest to the log.

    Attributes:
        lines: the last ones, for an error message.
        failure: of what kind the stage's failure is, as the stage says.
    """

    def __init__(self, stage: str) -> None:
        self.lines: list[str] = []
        self.failure = "other"
        self._report = _progress_reporter(stage)

    def read(self, line: str) -> None:
        if line.startswith(MARK):
            self._report(json.loads(line.removeprefix(MARK)))
        elif line.startswith(FAILURE):
            self.failure = line.removeprefix(FAILURE).strip()
        elif line.strip():
            self.lines = [*self.lines[-KEPT:], line]
            if not CHATTER.match(line):
                get_run_logger().info("%s", line)

    def error(self) -> str:
        """The stage's own error, to the end of its indented lines; or else DVC's."""
        for place, line in enumerate(self.lines):
            if line.startswith("error: "):
                more = takewhile(lambda each: each.startswith("  "), self.lines[place + 1 :])
                return "\n  ".join([line.removeprefix("error: "), *more])[:2000]
        return dvc_error(self.lines)


@contextmanager
def _process_group(
    words: list[str], root: Path, environment: Mapping[str, str], seconds: float
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """A Python process and all that it starts; the event is set when the time limit has passed."""
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
    """Variables by which a stage's processes find the flow: they end with its process and record under its run."""
    leash = {LEASH: process_key(psutil.Process())}
    return {**leash, FLOW_RUN: str(runtime.flow_run.id)} if runtime.flow_run.id else leash


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Asks the whole group to end, then kills the rest."""
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


def _progress_reporter(stage: str) -> Callable[[dict[str, Any]], None]:
    """Shows a stage's progress as a Prefect artifact, and every few seconds as a line in the log."""
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
