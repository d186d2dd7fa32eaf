"""A model to predict with: models/package, a version in MLflow's registry, or a package anywhere on disk.

Nothing in a package is executed: its graph, head and calibration are read by the code of this installation.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from graft.tasks.code import tree_hash
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths, find_root
from graft.tasks.register.serving import ImageClassifier

from ..tracking.store import has_store
from ..versioning.dvc import locked_outs, raw_hash
from ..versioning.git import git_state

PACKAGE, KEYWORD = "models/package", "package"
"""The folder, and the word that means it in a project."""

CHAMPION = "champion"

FILES = ("package.json", "head.json", "calibration.json")
"""What each package has."""


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    Attributes:
        name: of the registered model, or what its package says.
        version: in MLflow's registry; empty for a package.
        where: it comes from, in words.
        folder: of the package, for as long as the model is open.
        facts: of its package.json.
        root: of the project; None outside one.
        data: the hash of data/raw from which it was made, as far as it is known.
        commit: of the code and the parameters, likewise.
    """

    name: str
    version: str
    where: str
    folder: Path
    classifier: ImageClassifier
    facts: dict[str, Any]
    root: Path | None = None
    data: str = ""
    commit: str = ""


@contextmanager
def open_model(wanted: str | None, project: Path) -> Iterator[Predictor]:
    """Args:
        wanted: the folder of a package; `package` for models/package; an alias or a version of the registered model,
            also as NAME@ALIAS or NAME/VERSION; None for the champion, or models/package if there is none.
        project: a folder in the project. A package needs none.

    Raises:
        GraftError: there is no such model, or its files are not those that were made.
    """
    root = _root(project)
    keyword = root is not None and wanted == KEYWORD
    if wanted and not keyword and (Path(wanted).is_dir() or wanted.startswith((".", os.sep))):
        yield _opened(_package_in(Path(wanted)), wanted, root=root)
        return
    if root is None:
        raise GraftError(
            "there is no such model outside a project",
            got=f"--model {wanted}" if wanted else "no --model, and no params.yaml here or above",
            allowed="the folder of a package, with package.json",
            todo="name one with --model FOLDER, or a project with --project",
        )
    if keyword or (wanted is None and not _has_champion(root)):
        check_package(root)
        commit = git_state(root).commit
        yield replace(_opened(Paths(root).package, PACKAGE, root=root), data=raw_hash(root), commit=commit)
        return
    yield from _registered(root, wanted or CHAMPION)


def _root(project: Path) -> Path | None:
    try:
        return find_root(project)
    except GraftError:
        if project != Path():
            raise
        return None


def _package_in(folder: Path) -> Path:
    """The package in a folder: itself, or that of a model downloaded from MLflow.

    Raises:
        GraftError: there is no package, or a part of one.
    """
    inner = folder / "artifacts" / "package"
    package = inner if inner.is_dir() else folder
    missing = [name for name in FILES if not (package / name).is_file()]
    if missing:
        raise GraftError(
            f"{folder} is not the package of a model",
            got=f"no {', '.join(missing)} in it" if folder.is_dir() else "no such folder",
            allowed="a folder like models/package, or a model downloaded from MLflow",
            todo="`graft repro` makes models/package; it may be copied as it is",
        )
    return package


def _opened(folder: Path, where: str, *, root: Path | None, name: str = "", version: str = "") -> Predictor:
    try:
        facts = read_json(folder / "package.json")
        return Predictor(
            name or str(facts.get("name", "")), version, where, folder, ImageClassifier(folder), facts, root
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise GraftError(
            f"the package in {where} cannot be read",
            got=f"{type(error).__name__}: {error}",
            todo="copy it again, or make it again with `graft repro`",
        ) from error


def _has_champion(root: Path) -> bool:
    """Whether there is one; a project without a store of runs is not given one."""
    if not has_store(root):
        return False
    from ..registry.models import version_at
    from ..runtime.params import model_name
    from ..tracking.tracker import Tracker

    return bool(version_at(Tracker(root), model_name(root), CHAMPION))


def _registered(root: Path, wanted: str) -> Iterator[Predictor]:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would fill a notebook's cell
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm misses widgets for the same bar
        from ..registry.models import fetched_package, find_version
        from ..tracking.tracker import Tracker

    name, which = named(wanted, root)
    tracker = Tracker(root)
    version = find_version(tracker, name, which)
    with fetched_package(tracker, version) as folder:
        where = f"{version.name} version {version.version}"
        opened = _opened(folder, where, root=root, name=str(version.name), version=str(version.version))
        yield replace(opened, data=version.tags.get("dvc.raw", ""), commit=version.tags.get("git.commit", ""))


def named(wanted: str, root: Path) -> tuple[str, str]:
    """The name of the registered model, and the alias or version: NAME@ALIAS, NAME/VERSION, or one of these alone for
    the project's own; also with `models:/` before it, as MLflow writes them."""
    from ..runtime.params import model_name

    text = wanted.removeprefix("models:/")
    for mark in ("@", "/"):
        name, found, which = text.rpartition(mark)
        if found and name and which:
            return name, which
    return model_name(root), text


def check_package(root: Path) -> None:
    """Raises:
    GraftError: models/package is missing, or not the one that dvc.lock names.
    """
    folder, known = Paths(root).package, locked_outs(root).get(PACKAGE, "")
    if not known or not folder.is_dir():
        raise GraftError(f"there is no {PACKAGE}", todo="run `graft repro`, which makes it")
    found = tree_hash(folder)
    if found != known:
        raise GraftError(
            f"the files of {PACKAGE} are not those that dvc.lock names; nothing was loaded",
            got=found,
            allowed=known,
            todo=f"restore them: `dvc checkout {PACKAGE}`, or make them again: `graft repro`",
        )
