"""`graft doctor`: checks of this machine and this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import sha256
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.shard_members import Shards
from graft.tasks.common.images.shards import shards_of
from graft.tasks.features.params import FeaturesParams

from ..runtime.params import load_params
from ..versioning import dvc, git
from ..versioning.destination import destination

NEEDED_GIGABYTES = 2.0
INSTALL = "install Graft again with pip (in its own repository: make install)"


@dataclass(frozen=True)
class Finding:
    """One check: `ok`, `warn` or `fail`, what was found, and what to do."""

    check: str
    state: str
    found: str
    todo: str = ""


def examine(root: Path) -> list[Finding]:
    """Runs every check on its own: one that breaks does not hide the next."""
    checks: list[Callable[[Path], Finding]] = [
        _python, _graft, _packages, _git, _remote, _dvc, _images, _params, _weights, _processor, _disk, _mlflow,
        _model,
    ]  # fmt: skip
    return [_safely(check, root) for check in checks]


def _safely(check: Callable[[Path], Finding], root: Path) -> Finding:
    """A check that raises an error, for example because a package is missing, is a finding too."""
    try:
        return check(root)
    except Exception as error:  # noqa: BLE001  (any error says something about this machine)
        if isinstance(error, GraftError):
            what, todo = error.what if error.got is None else f"{error.what}: {error.got}", error.todo
        else:
            what, todo = f"{type(error).__name__}: {error}", ""
        return Finding(check.__name__.strip("_"), "fail", what, todo or f"if a package is missing: {INSTALL}")


def _python(_root: Path) -> Finding:
    found = sys.version.split()[0]
    first = shutil.which("python")
    if (
        first is None
        or Path(first).resolve() != Path(sys.executable).resolve()
        or Path(first).parent != Path(sys.executable).parent
    ):
        todo = f"activate the environment, or run DVC as `graft repro`: source {Path(sys.prefix).name}/bin/activate"
        return Finding("python", "warn", f"{found}, but `python` in the PATH is {first}", todo)
    return Finding("python", "ok", found)


def _graft(root: Path) -> Finding:
    """Which Graft is installed, and whether a folder in PYTHONPATH, or one of the project, comes before it."""
    installed = _graft_of(root, "-E", "-P")
    in_stages = _graft_of(root)
    if in_stages != installed:
        todo = f"rename {in_stages}, or take the folder above it out of PYTHONPATH"
        return Finding("graft", "fail", f"stages import {in_stages} instead of {installed}", todo)
    return Finding("graft", "ok", f"{version('graft')}, in {installed}")


def _graft_of(root: Path, *options: str) -> str:
    """The `graft` that a Python process in the project imports; with `-E` and `-P`, the installed one."""
    program = "import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec('graft').origin).resolve())"
    words = [sys.executable, *options, "-c", program]
    return (
        subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
        .stdout.strip()
        .removesuffix("/__init__.py")
    )


def _packages(_root: Path) -> Finding:
    names = ("prefect", "dvc", "torch", "timm", "mlflow", "albumentations", "openvino")
    missing = []
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", INSTALL)
    return Finding("packages", "ok", ", ".join(found))


def _git(root: Path) -> Finding:
    state = git.git_state(root)
    if not state.commit:
        return Finding("git", "warn", "no commit", "git init, git add, git commit: lineage records the commit")
    return Finding("git", "ok", f"{state.branch} at {state.commit[:12]}{', with changes' if state.dirty else ''}")


def _remote(root: Path) -> Finding:
    try:
        params = load_params(root / "params.yaml").retrain
        goes = destination(root, params.remote, params.branch)
    except GraftError as error:
        return Finding("remote", "warn", error.what, error.todo)
    return Finding("remote", "ok" if goes.remote else "warn", f"scheduled runs: {goes}", goes.todo)


def _dvc(root: Path) -> Finding:
    if not (root / ".dvc").is_dir():
        return Finding("dvc", "fail", "not initialised", "graft init")
    remotes = dvc.dvc(root, ["remote", "list"], "listing remotes").split("\n")[0]
    if not remotes.strip():
        return Finding(
            "dvc",
            "warn",
            "no remote",
            "dvc remote add -d NAME ADDRESS, so that `dvc push` can store images and models there",
        )
    return Finding("dvc", "ok", " ".join(remotes.split()))


def _images(root: Path) -> Finding:
    if not Paths(root).raw.is_dir():
        return Finding("images", "fail", "data/raw does not exist", "graft import PATH, graft sample or dvc pull")
    digest = dvc.raw_hash(root)
    if not digest:
        return Finding("images", "fail", "data/raw is not under DVC", "dvc add data/raw")
    shards = shards_of(Paths(root).raw)
    return Finding("images", "ok", f"{digest}{'' if shards is None else _read(shards, Paths(root).raw)}")


def _read(shards: Shards, raw: Path) -> str:
    """Raises:
    DataError: an index does not describe its shard, by the first and the last image of each.
    """
    for name in shards.first_and_last():
        with content_of(raw / name, Limits()):
            pass
    return f", {len(shards):,} images in {len(shards.files) // 2:,} shards"


def _params(root: Path) -> Finding:
    try:
        load_params(root / "params.yaml")
    except GraftError as error:
        return Finding("params", "fail", error.what, error.todo)
    return Finding("params", "ok", "params.yaml")


def _weights(root: Path) -> Finding:
    """Of all backbones; the worst finding if there are several."""
    try:
        params = load_params(root / "params.yaml").features
    except GraftError as error:
        return Finding("weights", "fail", error.what, error.todo)
    found = {one.eye[:3]: one for one in params.eyes}  # once for all sizes
    findings = [_weights_of(one, root) for one in found.values()]
    state = max((one.state for one in findings), key=("ok", "warn", "fail").index)
    todo = next((one.todo for one in findings if one.state == state), "")
    return Finding("weights", state, "; ".join(one.found for one in findings), todo)


def _weights_of(params: FeaturesParams, root: Path) -> Finding:
    from graft.tasks.common.backbones import fetch
    from graft.tasks.common.backbones.caches import hub_file
    from graft.tasks.common.backbones.catalogue import timm_name
    from graft.tasks.common.backbones.weights import check_pinned, find_weights, ways

    try:
        named, weights, pinned, _ = params.eye
        backbone = timm_name(named, weights)
        source = find_weights(backbone, weights, Paths(root).weights, pinned, params.output)
        file = hub_file(backbone) if source.kind == "hub" else source.file
        found = f"{named}: {source.kind}, {source.where}"
        if file is not None and source.pinned:
            check_pinned(backbone, replace(source, file=file, sha256=sha256(file)), source.pinned)
        if file is not None or source.kind == "random":
            return Finding("weights", "ok", f"{found}, in {file}" if file else found)
        origin = fetch.address(backbone, source)
    except GraftError as error:
        return Finding("weights", "fail", error.what, error.todo)
    if not origin:
        return Finding("weights", "fail", f"{found}, which has no weights", ways(backbone, source.kind))
    return Finding(
        "weights", "warn", f"{found}; the first run downloads them from {origin}", ways(backbone, source.kind)
    )


def _processor(_root: Path) -> Finding:
    from graft.tasks.common.engines.openvino import cpu_has_fast_bf16

    kind = "bf16 in tiles (AMX)" if cpu_has_fast_bf16() else "fp32"
    return Finding("processor", "ok", f"{cores()} cores, inference in {kind}")


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 1e9
    if free < NEEDED_GIGABYTES:
        return Finding(
            "disk",
            "warn",
            f"{free:.1f} GB free",
            "free some disk space: DVC keeps every version of features and models",
        )
    return Finding("disk", "ok", f"{free:.0f} GB free")


def _mlflow(root: Path) -> Finding:
    from graft.tasks.addresses import redacted

    from ..tracking.store import has_store, tracking_uri
    from ..tracking.tracker import Tracker

    uri = redacted(tracking_uri(root))
    try:
        if has_store(root):
            Tracker(root).require_writable()
    except GraftError as error:
        return Finding("mlflow", "fail", str(error.got), error.todo)
    return Finding("mlflow", "ok", uri)


def _model(root: Path) -> Finding:
    from ..registry.registering import misplaced_challenger
    from ..tracking.store import has_store
    from ..tracking.tracker import Tracker

    if not Paths(root).package.is_dir() or not has_store(root):
        return Finding("model", "ok", "none registered yet")
    wrong = misplaced_challenger(Tracker(root))
    if wrong:
        return Finding("model", "warn", wrong, "`graft run` or `graft repro` registers the package and moves the alias")
    return Finding("model", "ok", "the alias `challenger` points to the version of models/package")
