"""`graft export`: a packaged model as one ONNX or OpenVINO file, proven on the test images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.backbones.licences import licence_of, named
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.data.units import units
from graft.tasks.common.images.shards import is_stored
from graft.tasks.common.scoring.paired import Paired

from ..backbones.classify import files_of
from ..runtime.locations import Place
from .loading import Predictor, open_model

if TYPE_CHECKING:  # it needs the extra
    from graft.tasks.export.facts import Origin
    from graft.tasks.export.quantise import Exam

NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx",)}
"""Format -> what it needs of the extra `onnx`; the head is built in ONNX for both."""


def export_model(
    place: Place, wanted: str | None, kind: str, target: Path, given: Sequence[Path], max_loss: float | None = None
) -> dict[str, Any]:
    """Exports a model, and returns what was written and how it compares with the package.

    Args:
        wanted: see `open_model`.
        kind: `onnx` or `openvino`.
        given: pictures for the proof, and folders of them; none for the project's test images.
        max_loss: for a network in 8 bits, how much it may lose, in hundredths of the metric; None for single precision.

    Raises:
        GraftError: there is no such model, or it cannot be exported; nothing is written then.
    """
    check_installed(kind, int8=max_loss is not None)
    from graft.tasks.export.write import export

    images = proof_images(place.root, given)
    exam = None if max_loss is None else _exam(place.root, max_loss)
    with open_model(wanted, place.root or Path()) as model:
        done = export(model.folder, target, kind, images, _origin(model, place), exam)
    return {
        "model": model.where,
        "files": [str(file) for file in done.files],
        "megabytes": done.megabytes,
        "images": done.proof.images,
        "same_label": done.proof.same,
        "largest_difference": done.proof.difference,
        "milliseconds_per_image": done.proof.milliseconds,
        **_losses(done.loss),
    }


def _losses(loss: Paired | None) -> dict[str, Any]:
    """Of a network in 8 bits."""
    if loss is None:
        return {}
    return {"metric": loss.metric.key, "before": loss.first, "in_8_bits": loss.second, "validation_images": loss.images}


def check_installed(kind: str, *, int8: bool = False) -> None:
    """Whether the format is known, and what it needs is there.

    Raises:
        GraftError: it is not.
    """
    if kind not in NEEDED:
        raise GraftError("--to cannot be read", got=kind, allowed=", ".join(NEEDED))
    if int8 and kind != "openvino":
        raise GraftError(
            "a network in 8 bits is written for OpenVINO only: in ONNX Runtime it was smaller, but not faster",
            got=f"--precision int8 --to {kind}",
            todo="add --to openvino, or leave --precision out",
        )
    missing = [name for name in NEEDED[kind] if find_spec(name) is None]
    missing += ["nncf"] if int8 and find_spec("nncf") is None else []
    if missing:
        raise GraftError(
            "graft export needs packages that are not installed",
            got=", ".join(missing),
            todo=f"pip install 'graft[{'onnx,int8' if int8 else 'onnx'}]'",
        )


def _exam(root: Path | None, max_loss: float) -> Exam:
    """The project's training images to quantise with, and its validation images to decide on.

    Raises:
        GraftError: there is no project, or they are not here.
    """
    from graft.tasks.export.quantise import Exam

    if root is None:
        raise GraftError("8 bits need the images of the project", got="no project", todo="run it in the project")
    manifest = read_manifest(Paths(root).manifest)
    train, held_out = (manifest[manifest["split"] == split] for split in ("train", "val"))
    return Exam(
        train=_files(root, train["path"], "training"),
        held_out=_files(root, held_out["path"], "validation"),
        labels=list(held_out["label"]),
        unit_N=units(held_out)[0],
        max_loss=max_loss,
    )


def _files(root: Path, paths: Iterable[str], what: str) -> list[Path]:
    """Below data/raw.

    Raises:
        DataError: there are none, or some are missing.
    """
    files = [Paths(root).raw / path for path in paths]
    missing = [file for file in files if not is_stored(file)]
    if missing or not files:
        raise DataError(
            f"the project's {what} images are not here",
            got=f"{len(missing)} of {len(files)} are missing" if files else "there are none",
            todo="`dvc checkout data/raw`" + (", or name other pictures: --images FOLDER" if what == "test" else ""),
        )
    return files


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
    return _files(root, manifest["path"][manifest["split"] == "test"], "test")
