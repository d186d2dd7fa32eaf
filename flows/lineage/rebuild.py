"""`graft rebuild`: a registered version is rebuilt from its commit and its data, and compared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from graft.tasks.code import tree_hash
from graft.tasks.common.core.errors import GraftError, ParamsError
from graft.tasks.common.core.files import read_json, whole_file
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.core.sections import read_params
from graft.tasks.common.data.task import main_in

from ..registry.logged_model import TEST_METRICS
from ..registry.models import fetched_package, find_version
from ..runtime import claims
from ..stage.recorder import recorder_runs
from ..tracking.names import flatten
from ..versioning import dvc, git
from ..versioning.dvc_config import share_cache
from . import environment as environments
from . import package_diff
from .executions import Records
from .provenance import LABELS, Recipe, labels_as_found, md5_of, recipe_of

Document = dict[str, Any]

ENVIRONMENTS = ("current", "recorded")

SETTLING = 30.0
"""Seconds that the recorder may take to write its last entry after DVC has ended."""

OWNER = ".json"
"""Suffix of the file beside a worktree in use: the claim of the process working in it."""

LINKS = ("reflink", "hardlink", "copy")
"""How images get from the cache into a worktree that exists for minutes."""


def rebuild(root: Path, wanted: str, *, keep: bool = False, environment: str = "current") -> Document:
    """Rebuilds a version in a git worktree, without any cache of results, and compares it with the registered one.

    Args:
        wanted: NAME@alias, NAME/3, an alias or a number.
        keep: whether the worktree is kept.
        environment: `current`, or `recorded`: packages that differ are installed in the recorded versions.

    Raises:
        GraftError: there is no such version; its code, commit or data are not available; or a stage failed.
    """
    if environment not in ENVIRONMENTS:
        raise ParamsError("--environment", got=environment, allowed=", ".join(ENVIRONMENTS))
    records = Records(root)
    version = records.named(wanted) or find_version(records.tracker, records.name, wanted)
    recipe = recipe_of(records, version)
    raw = recipe.raw()
    say(f"rebuild: {recipe.name}, commit {recipe.commit[:12]}, images {raw}")
    dvc.bring_back(root, raw, "its images")
    differing = environments.differences(environments.recorded(records.tracker, recipe.execution.parent))
    started = time.monotonic()
    with _worktree(root, f"{version.name}-{version.version}", recipe.commit, keep) as place:
        code = recipe.code_folder(root, place)
        notes = [*_restore(root, place, recipe, raw)]
        notes += environments.notes(differing) if environment == "recorded" else []
        _run(place, _python(place, environment, differing), code, keep)
        with fetched_package(records.tracker, version) as package:
            files = package_diff.compare(package, Paths(place).package)
        document = {
            "name": version.name,
            "version": str(version.version),
            "commit": recipe.commit,
            "data": raw,
            "environment": environment,
            "packages": {name: {"then": then, "now": now} for name, (then, now) in differing.items()},
            "notes": notes,
            "metrics": _metrics(recipe, place),
            "files": files,
            "outputs": _outputs(recipe, place),
            "seconds": round(time.monotonic() - started, 1),
            "worktree": str(place) if keep else "",
        }
    equal = all(each["then"] == each["now"] for each in document["metrics"].values())
    return {"equal": equal, **document}


@contextmanager
def _worktree(root: Path, name: str, commit: str, keep: bool) -> Iterator[Path]:
    """The project's folder in a worktree at the commit; removed afterwards unless it is kept."""
    below = git.git(root, "rev-parse", "--show-prefix", doing="looking for the project in its repository")
    folder = Paths(root.resolve()).state / "rebuild" / f"{name}-{datetime.now():%Y%m%dT%H%M%S}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    owner = folder.with_name(f"{folder.name}{OWNER}")
    doing = f"making a worktree at {commit[:12]}"
    try:
        if not keep:
            claims.claim(owner)
        git.git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit, doing=doing)
        yield folder / below
    finally:
        owner.unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            git.git(root, "worktree", "prune", doing="removing the worktree")


def _remove_abandoned(folder: Path) -> None:
    """Removes worktrees of rebuilds that were killed; git forgets them when the next one is removed."""
    for owner in claims.dead(folder):
        shutil.rmtree(owner.with_name(owner.name.removesuffix(OWNER)), ignore_errors=True)
        owner.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    return tree_hash(path) if path.exists() else ""


def _restore(root: Path, place: Path, recipe: Recipe, raw: str) -> Iterator[str]:
    """Restores parameters, pins, images and weights; yields what differed from the commit."""
    yield from _restore_params(Paths(place).params, recipe)
    _restore_pins(root, Paths(place).pins, recipe)
    _restore_labels(root, Paths(place).labels, recipe)
    share_cache(root, place, LINKS)
    with whole_file(place / "data" / "raw.dvc") as part:
        part.write_text(yaml.safe_dump({"outs": [{"md5": raw, "hash": "md5", "path": "raw"}]}), encoding="utf-8")
    dvc.dvc(place, ["checkout", "data/raw.dvc"], "bringing the images back")
    yield from _restore_weights(root, place, recipe)
    (place / "dvc.lock").unlink(missing_ok=True)  # or DVC would consider stages up to date


def _restore_params(file: Path, recipe: Recipe) -> Iterator[str]:
    """Takes the stages' sections from the lock; other sections change no stage's result."""
    now, then = read_params(file), dict[str, Any]()
    for stage in recipe.lock.values():
        then |= {key: value for key, value in stage.get("params", {}).get("params.yaml", {}).items() if key in STAGES}
    before, after = (flatten({stage: of.get(stage) or {} for stage in then}) for of in (now, then))
    other = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if other:
        with whole_file(file) as part:
            part.write_text(yaml.safe_dump({**now, **then}, sort_keys=False), encoding="utf-8")
        yield f"params.yaml differs from the commit; taken from the run: {', '.join(other)}"


def _restore_pins(root: Path, file: Path, recipe: Recipe) -> None:
    """Restores data/pins.csv as the run found it or left it: both give the same splits.

    Raises:
        GraftError: no commit has it.
    """
    if not recipe.pins or (file.is_file() and md5_of(file.read_bytes()) in recipe.pins):
        return
    found = next((each for each in git.versions_of(root, "data/pins.csv") if md5_of(each) in recipe.pins), None)
    if found is None:
        raise GraftError(
            f"the splits of {recipe.name} are lost: no commit has its data/pins.csv",
            got=" or ".join(sorted(recipe.pins)),
            todo="commit data/pins.csv after each run",
        )
    file.write_bytes(found)


def _restore_labels(root: Path, file: Path, recipe: Recipe) -> None:
    """Restores data/labels.csv as the run found it, from a commit, or from the beginning of today's: it only grows.

    Raises:
        GraftError: neither has it.
    """
    if not recipe.labels or (file.is_file() and md5_of(file.read_bytes()) in recipe.labels):
        return
    found = labels_as_found(root, recipe)
    if found is None:
        raise GraftError(
            f"the labels of {recipe.name} are lost: no commit has its {LABELS}",
            got=" or ".join(sorted(recipe.labels)),
            todo=f"commit {LABELS} before each run",
        )
    file.write_bytes(found)


def _restore_weights(root: Path, place: Path, recipe: Recipe) -> Iterator[str]:
    """Restores data/weights: files that DVC tracks, and this project's others if the folder is then the same."""
    weights, recorded = Paths(place).weights, recipe.hashes("deps").get("data/weights", "")
    for tracked in sorted(weights.glob("*.dvc")):
        digest = dvc.raw_hash(place, f"data/weights/{tracked.name}")
        if not dvc.is_cached(root, digest):
            dvc.fetch_object(root, digest, "its weights")
        dvc.dvc(place, ["checkout", f"data/weights/{tracked.name}"], "bringing the weights back")
    if not recorded or _hash(weights) == recorded:
        return
    if _hash(Paths(root).weights) == recorded:
        shutil.copytree(Paths(root).weights, weights, dirs_exist_ok=True)
        return
    yield "data/weights differs from then; the backbone's weights may come from another source"


def _python(place: Path, environment: str, differing: Mapping[str, tuple[str, str]]) -> Path:
    """This Python, or that of an environment with the recorded packages."""
    packages = environments.installable(differing) if environment == "recorded" else {}
    return environments.make(place / ".graft" / "environment", packages) if packages else Path(sys.executable)


def _run(place: Path, python: Path, code: Path | None, keep: bool) -> None:
    """Runs all stages from scratch; they record in a store inside the worktree.

    Args:
        code: the folder to import Graft from; None for the installed one.

    Raises:
        GraftError: one failed.
    """
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GRAFT_", "PREFECT_"))}
    mine |= {"PYTHONPATH": str(code)} if code is not None else {}
    path = os.pathsep.join([str(python.parent), mine.get("PATH", "")])
    command = [str(python), "-P", "-m", "dvc", "repro", "--no-run-cache", "--no-commit"]
    done = subprocess.run(command, cwd=place, env={**mine, "PATH": path}, stdout=sys.stderr.fileno())
    _await_recorder(place)
    if done.returncode:
        raise GraftError(
            "the pipeline of that version fails here",
            got=f"exit code {done.returncode}, see above",
            todo=f"see {place}" if keep else "use `--keep` to inspect the worktree",
        )


def _await_recorder(place: Path) -> None:
    """The recorder writes into the worktree until it has recorded the end of DVC."""
    deadline = time.monotonic() + SETTLING
    while time.monotonic() < deadline and recorder_runs(place):
        time.sleep(0.1)


def _metrics(recipe: Recipe, place: Path) -> Document:
    """The test metrics: then, now, and the difference."""
    test = read_json(Paths(place).metrics("evaluate"))
    run = recipe.execution.stages.get("evaluate")
    then = dict(run.data.metrics) if run is not None else {}
    keys = [*main_in(test).keys, *TEST_METRICS[test["task"]]]
    known = [key for key in keys if key in then or test.get(key) is not None]  # an earlier version had fewer metrics
    return {key: _compared(then.get(key), test.get(key)) for key in known}


def _compared(then: float | None, now: float | None) -> Document:
    return {"then": then, "now": now, "difference": None if then is None or now is None else now - then}


def _outputs(recipe: Recipe, place: Path) -> dict[str, bool]:
    """Output of a stage -> whether it has the same bytes; outputs with times and run ids are left out."""
    then, now = recipe.hashes("outs"), dvc.locked_outs(place)
    left_out = ("runs/", "metrics/", "models/registration.json")  # the last was an output of earlier versions
    return {path: now.get(path) == digest for path, digest in then.items() if not path.startswith(left_out)}
