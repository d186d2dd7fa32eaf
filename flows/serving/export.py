"""`graft export`: a packaged model as one ONNX or OpenVINO file, proven on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.backbones.licences import licence_of, named
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest

from ..backbones.classify import files_of
from ..runtime.locations import Place
from .loading import Predictor, open_model

if TYPE_CHECKING:  # it needs the extra
    from graft.tasks.export.facts import Origin

NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx",)}
"""Format -> what it needs of the extra `onnx`; the head is built in ONNX for both."""


def export_model(place: Place, wanted: str | None, kind: str, target: Path, given: Sequence[Path]) -> dict[str, Any]:
    """Exports a model, and returns what was written and how it compares with the package.

    Args:
        wanted: see `open_model`.
        kind: `onnx` or `openvino`.
        given: pictures for the proof, and folders of them; none for the project's test images.

    Raises:
        GraftError: there is no such model, or it cannot be exported; nothing is written then.
    """
    check_installed(kind)
    from graft.tasks.export.write import export

    images = proof_images(place.root, given)
    with open_model(wanted, place.root or Path()) as model:
        done = export(model.folder, target, kind, images, _origin(model, place))
    return {
        "model": model.where,
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


def _origin(model: Predictor, place: Place) -> Origin:
    """What the file says about where the model comes from."""
    from graft.tasks.export.facts import Origin, backbones_in

    licences = tuple(named(licence_of(*each, place.cache)) for each in backbones_in(model.folder))
    known = {"data": model.data, "commit": model.commit}
    return Origin(model.where, licences=licences, **{key: value for key, value in known.items() if value})


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
