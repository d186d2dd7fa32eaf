"""The export of a package: file, proof, README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from ..common.core.errors import DataError, GraftError
from .facts import Origin, facts_of
from .onnx_file import Parts, onnx_model
from .openvino_file import openvino_model, preparations
from .proof import Proof, prove
from .read_me import read_me

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
"""Format -> how the name of its file ends."""


@dataclass(frozen=True)
class Exported:
    """Attributes:
    files: what was written, the file itself first and its README last.
    megabytes: of the files without the README.
    """

    files: list[Path]
    megabytes: float
    proof: Proof


def export(package: Path, target: Path, kind: str, images: Sequence[Path], origin: Origin) -> Exported:
    """Writes the file and its README beside it, if it answers for all images as the package does.

    Raises:
        GraftError: the package cannot be exported, or its export does not agree with it; nothing is written then.
    """
    check_target(target, kind, package)
    parts, facts = read_parts(package), facts_of(package, origin, "f32")
    with TemporaryDirectory(prefix=".graft-export-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        write_file(parts, part, kind, facts)
        proof = prove(part, package, images, preparations(parts) if kind == "openvino" else {})
        return put_in_place(part, target, read_me(target.name, parts, facts, proof, []), proof)


def read_parts(package: Path) -> Parts:
    """What the package consists of.

    Raises:
        DataError: the folder is not a package, or is damaged.
    """
    try:
        return Parts.of(package)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise DataError(
            f"{package} is not a package that can be read",
            got=f"{type(error).__name__}: {error}"[:300],
            allowed="a folder as the stage register writes it to models/package",
            todo="name such a folder, or restore it: `dvc checkout models/package`",
        ) from error


def check_target(target: Path, kind: str, package: Path) -> None:
    if target.suffix != SUFFIX[kind] or target.is_dir():
        raise GraftError(
            f"the exported file cannot have this name for --to {kind}",
            got=str(target),
            allowed=f"a file whose name ends in {SUFFIX[kind]}",
        )
    if not target.parent.is_dir():
        raise GraftError("the folder of the exported file does not exist", got=str(target.parent), todo="create it")
    if target.resolve().is_relative_to(package.resolve()):
        raise GraftError("the exported file would change the package", got=str(target), todo="choose another folder")


def write_file(parts: Parts, target: Path, kind: str, facts: dict[str, str]) -> None:
    if kind == "onnx":
        target.write_bytes(onnx_model(parts, facts).SerializeToString())
        return
    import openvino as ov

    ov.save_model(openvino_model(parts, facts), target, compress_to_fp16=False)


def put_in_place(part: Path, target: Path, text: str, proof: Proof) -> Exported:
    """Moves the proven files to where they were wanted, the one that names the others last."""
    megabytes = sum(file.stat().st_size for file in part.parent.iterdir()) / 1e6
    notes = part.with_name(f"{target.name}.README.md")
    notes.write_text(text, encoding="utf-8")
    files = [part, *([part.with_suffix(".bin")] if part.suffix == ".xml" else []), notes]
    for file in reversed(files):
        file.replace(target.parent / file.name)
    return Exported([target.parent / file.name for file in files], megabytes, proof)
