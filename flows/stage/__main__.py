"""Runs one stage: the command of every stage in dvc.yaml (`python -m graft.flows.stage NAME`)."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.code import record_code
from graft.tasks.common.core.errors import GraftError, ParamsError, may_pass, nearest
from graft.tasks.common.core.files import write_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.progress import say, say_failure
from graft.tasks.environment import of_flow, prepare_process, trial

from ..runtime import processes
from .recorder import Recorder

if TYPE_CHECKING:
    from graft.tasks.common.core.record import Record
    from graft.tasks.common.core.sections import Section

    from ..runtime.params import Params


def main(words: list[str]) -> int:
    """0 when the stage is done, 2 when the user can fix what is wrong."""
    prepare_process()
    try:
        if len(words) != 1 or words[0] not in STAGES:
            got = " ".join(words) or "nothing"
            raise GraftError("unknown stage", got=got, allowed=", ".join(STAGES), todo=nearest(got, STAGES))
        run_stage(words[0], Paths(Path.cwd()))
    except GraftError as error:
        say_failure("io" if may_pass(error) else "user")
        print(f"\nerror: {error}\n", file=sys.stderr)
        return 2
    except OSError as error:
        say_failure("io" if may_pass(error) else "other")
        raise
    return 0


def run_stage(stage: str, paths: Paths) -> None:
    """Reads the parameters, runs the stage, and records its metrics.

    A failure is recorded and leaves no half-written output. A failure that is a finding of the stage (`record.failure`)
    is recorded with all its results.

    Raises:
        GraftError: a user error.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
    recorder = Recorder(paths.root)  # first of all: MLflow is loaded while this process loads its own
    processes.follow_the_execution()
    from ..versioning import dvc, stale

    every = _params(stage, paths)
    change = record_code(paths.root)  # DVC hashes what a stage depends on once it has run
    if change is not None:
        say(str(change))
    params = every.sections()[stage]
    inputs = dvc.dep_hashes(paths.root, stage)
    body = importlib.import_module(f"graft.tasks.{stage}.stage")
    with recorder:
        me = processes.me()
        who = (processes.key(me), me.create_time())
        recorder.begin(stage, {stage: params.model_dump()}, *who, of_flow())
        begun = time.time()
        if stage == "features":
            stale.refuse_other_images(paths.root)
        extra = _beside_params(stage, every, paths)
        with stale.unchanged(paths.raw) if stage == "preprocess" else nullcontext():
            record: Record = body.run(params, paths, *extra)
        runs = recorder.runs()
        registered = _record(stage, record, begun, params, paths, recorder)
        if record.failure is not None:
            raise record.failure
        found, inputs, outputs = inputs, _as_left(inputs, paths), _hash_outputs(stage, paths)
        write_json(paths.run(stage), {"stage": stage, **runs, "inputs": inputs, "outputs": outputs, **registered})
        recorder("finish", inputs, outputs, {path: found[path] for path in found if found[path] != inputs[path]})
    if stage == STAGES[-1]:
        _say_what_changed(paths)


def _say_what_changed(paths: Paths) -> None:
    from .raw_changes import note

    changes = note(paths, processes.holder().create_time())
    if changes:
        say(changes)


def _params(stage: str, paths: Paths) -> Params:
    """All parameters, checked. DVC has removed the stage's outputs by now: if they are refused, these are restored."""
    from ..runtime.params import load_params

    try:
        return load_params(paths.params)
    except ParamsError:
        from ..versioning.removed_outs import restore_outs

        restored, missing = restore_outs(paths.root, stage)
        if restored:
            say(f"{stage}: DVC had removed {', '.join(restored)}; restored")
        if missing:
            say(f"{stage}: DVC has removed {', '.join(missing)}; the next run writes them")
        raise


def _beside_params(stage: str, every: Params, paths: Paths) -> list[Any]:
    """What preprocess, and features and finetune on a cluster, get besides their parameters and paths."""
    if stage == "features" and every.compute.engine == "ray":
        from ..cluster.features import RayRunner

        return [RayRunner(every.compute, paths)]
    if stage == "finetune" and every.compute.engine == "ray":
        from ..cluster.training import RayTraining

        return [RayTraining(every.compute, paths)]
    if stage != "preprocess":
        return []
    from ..versioning import dvc, losses

    losses.require_no_loss(paths.root)
    return [dvc.raw_hashes(paths.root), every.head.task]


def _record(
    stage: str, record: Record, begun: float, params: Section, paths: Paths, recorder: Recorder
) -> dict[str, Any]:
    """Writes the metrics to their file and to MLflow; returns the registered version, for runs/register.json."""
    from ..versioning.dvc import raw_hash

    metrics: dict[str, Any] = dict(record.metrics)
    # Not in the metrics file, which DVC caches: another MLflow store has its own version numbers.
    registered = _register(params.model_dump()["name"], recorder) if stage == "register" else {}
    started = processes.me().create_time()
    metrics |= {"seconds": round(time.time() - started, 3), "startup_seconds": round(begun - started, 3)}
    write_json(paths.metrics(stage), metrics)
    version = {"model": registered["name"], "version": int(registered["version"])} if registered else {}
    recorder("log", record, {**metrics, **version}, raw_hash(paths.root))
    return {"registered": registered} if registered else {}


def _register(name: str, recorder: Recorder) -> dict[str, Any]:
    """The registered version; empty in a trial: there may be hundreds, and no gate will judge them."""
    if trial():
        say(f"register: `{trial()}` is a trial of `dvc exp run`: packaged, not registered; `graft repro` registers it")
        return {}
    return dict(recorder("register", name))


def _as_left(inputs: dict[str, str], paths: Paths) -> dict[str, str]:
    """The hashes of what the stage read, with that of data/pins.csv as `preprocess` has left it: DVC, too, hashes its
    dependencies once a stage has run."""
    from graft.tasks.code import tree_hash

    pins = paths.relative(paths.pins)
    return {**inputs, pins: tree_hash(paths.pins)} if pins in inputs else inputs


def _hash_outputs(stage: str, paths: Paths) -> dict[str, str]:
    from graft.tasks.code import tree_hash

    from ..versioning.dvc import stage_files

    own = paths.relative(paths.run(stage))
    return {out: tree_hash(paths.root / out) for out in stage_files(paths.root, stage).outs if out != own}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
