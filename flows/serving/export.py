"""`graft export`: a packaged model as one ONNX or OpenVINO file, proven on the test images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.backbones.licences import licence_of, named
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest

from ..backbones.classify import files_of
from ..registry.models import CHAMPION, fetched_package, find_version, version_at
from ..runtime.locations import Place
from ..runtime.params import model_name
from ..tracking.store import has_store
from ..tracking.tracker import Tracker
from ..versioning.dvc import raw_hash
from ..versioning.git import git_state

PACKAGE = "package"
"""The name by which `--model` means models/package."""

NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx",)}
"""Format -> what it needs of the extra `onnx`; the head is built in ONNX for both."""


@dataclass(frozen=True)
class Found:
    """A package, and where it comes from.

    Attributes:
        model: its name, for people.
    """

    folder: Path
    model: str
    data: str = ""
    commit: str = ""


def export_model(place: Place, wanted: str, kind: str, target: Path, given: Sequence[Path]) -> dict[str, Any]:
    """Exports a model, and returns what was written and how it compares with the package.

    Args:
        wanted: `package`, an alias or a version of the registered model, or a folder; empty for the champion, or
            models/package while there is none.
        kind: `onnx` or `openvino`.
        given: pictures for the proof, and folders of them; none for the project's test images.

    Raises:
        GraftError: there is no such model, or it cannot be exported; nothing is written then.
    """
    check_installed(kind)
    from graft.tasks.export.facts import Origin, backbones_in
    from graft.tasks.export.write import export

    images = proof_images(place.root, given)
    with found_package(place.root, wanted) as found:
        licences = tuple(named(licence_of(*each, place.cache)) for each in backbones_in(found.folder))
        known = {key: value for key, value in (("data", found.data), ("commit", found.commit)) if value}
        done = export(found.folder, target, kind, images, Origin(found.model, licences=licences, **known))
    return {
        "model": found.model,
        "files": [str(file) for file in done.files],
        "megabytes": done.megabytes,
        "images": done.proof.images,
        "same_label": done.proof.same,
        "largest_difference": done.proof.difference,
        "milliseconds_per_image": done.proof.milliseconds,
    }


def check_installed(kind: str) -> None:
    if kind not in NEEDED:
        raise GraftError("--to cannot be read", got=kind, allowed=", ".join(NEEDED))
    missing = [name for name in NEEDED[kind] if find_spec(name) is None]
    if missing:
        raise GraftError(
            f"graft export --to {kind} needs packages that are not installed",
            got=", ".join(missing),
            todo="pip install 'graft[onnx]'",
        )


@contextmanager
def found_package(root: Path | None, wanted: str) -> Iterator[Found]:
    """The package, while the block runs. One from MLflow is checked against the digest of its registration.

    Raises:
        GraftError: there is none.
    """
    if root is None or os.sep in wanted:
        yield Found(_folder(wanted), f"the folder {Path(wanted).resolve().name}")
        return
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    tracker = Tracker(root) if has_store(root) else None
    name = model_name(root)
    chosen = wanted or (CHAMPION if tracker and version_at(tracker, name, CHAMPION) else PACKAGE)
    if chosen == PACKAGE:
        yield _own(root)
        return
    version = find_version(tracker or Tracker(root), name, chosen)
    with fetched_package(tracker or Tracker(root), version) as folder:
        yield _registered(folder, version)


def _folder(wanted: str) -> Path:
    if not wanted:
        raise GraftError(
            "there is no project here, so a model must be named",
            got="no --model",
            allowed="the folder of a package",
            todo="add --model FOLDER, or change into a project",
        )
    if not (Path(wanted) / "package.json").is_file():
        raise DataError(
            f"{wanted} is not a packaged model",
            got="no file package.json in it" if Path(wanted).is_dir() else "no such folder",
            allowed="a folder as the stage register writes it to models/package",
        )
    return Path(wanted)


def _own(root: Path) -> Found:
    from ..python.model import check_package

    check_package(root)
    return Found(Paths(root).package, "models/package", raw_hash(root), git_state(root).commit)


def _registered(folder: Path, version: ModelVersion) -> Found:
    tags = version.tags
    return Found(
        folder, f"{version.name} version {version.version}", tags.get("dvc.raw", ""), tags.get("git.commit", "")
    )


def proof_images(root: Path | None, given: Sequence[Path]) -> list[Path]:
    """The given pictures, or the test images of the project.

    Raises:
        GraftError: there are none.
    """
    if given:
        return files_of(given)
    if root is None:
        raise GraftError(
            "an export is compared with its package on pictures, and there is no project that has some",
            got="no --images",
            todo="name some pictures, or a folder of them: --images FOLDER",
        )
    manifest = read_manifest(Paths(root).manifest, ["path", "split"])
    files = [Paths(root).raw / path for path in manifest["path"][manifest["split"] == "test"]]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(
            "the project's test images are not here",
            got=f"{len(missing)} of {len(files)} are missing" if files else "there are none",
            todo="`dvc checkout data/raw`, or name other pictures: --images FOLDER",
        )
    return files
