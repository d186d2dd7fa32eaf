"""The export of a package: file, proof, README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from ..common.core.errors import DataError, GraftError
from ..common.scoring.paired import Paired
from .facts import Origin, facts_of
from .onnx_file import Parts, onnx_model
from .openvino_file import openvino_model, preparations
from .proof import IN_8_BITS, SINGLE, Proof, prove
from .quantise import Exam, check_enough, check_loss, compared, quantised_package, told
from .read_me import read_me

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
"""Format -> how the name of its file ends."""


@dataclass(frozen=True)
class Exported:
    """Attributes:
    files: what was written, the file itself first and its README last.
    megabytes: of the files without the README.
    loss: of a network in 8 bits, against the one before.
    """

    files: list[Path]
    megabytes: float
    proof: Proof
    loss: Paired | None = None


def export(
    package: Path, target: Path, kind: str, images: Sequence[Path], origin: Origin, exam: Exam | None = None
) -> Exported:
    """Writes the file and its README beside it, if it answers for all images as the package does.

    Args:
        exam: for a network in 8 bits, which is compared with the quantised package; None for single precision.

    Raises:
        GraftError: the package cannot be exported, or its export does not agree with it, or it loses too much in 8
            bits; nothing is written then.
    """
    check_target(target, kind, package)
    read_parts(package)
    with TemporaryDirectory(prefix=".graft-export-", dir=target.parent) as folder:
        source, loss = (package, None) if exam is None else _in_8_bits(package, exam, Path(folder) / "package")
        parts, facts = read_parts(source), facts_of(source, origin, "f32" if exam is None else "int8")
        part = Path(folder) / "file" / target.name
        part.parent.mkdir()
        write_file(parts, part, kind, facts)
        prepare, tolerance = preparations(parts) if kind == "openvino" else {}, IN_8_BITS if exam else SINGLE
        proof = prove(part, source, images, prepare, tolerance)
        notes = [] if loss is None else [f"Quantised to 8 bits: {told(loss)}."]
        return put_in_place(part, target, read_me(target.name, parts, facts, proof, notes), proof, loss)


def _in_8_bits(package: Path, exam: Exam, folder: Path) -> tuple[Path, Paired]:
    """The quantised package, and how it compares with the package."""
    check_enough(package, exam)
    quantised_package(package, exam.train, folder)
    loss = compared(package, folder, exam)
    check_loss(loss, exam)
    return folder, loss


def read_parts(package: Path) -> Parts:
    """What the package consists of.

    Raises:
        DataError: the folder is not a package, or is damaged.
    """
    try:
        parts = Parts.of(package)
        if any(graph.parent != package or not graph.is_file() for graph in parts.graphs):
            raise ValueError("package.json names a graph that is not in the folder")
        return parts
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


def put_in_place(part: Path, target: Path, text: str, proof: Proof, loss: Paired | None) -> Exported:
    """Moves the proven files to where they were wanted, the one that names the others last."""
    megabytes = sum(file.stat().st_size for file in part.parent.iterdir()) / 1e6
    notes = part.with_name(f"{target.name}.README.md")
    notes.write_text(text, encoding="utf-8")
    files = [part, *([part.with_suffix(".bin")] if part.suffix == ".xml" else []), notes]
    for file in reversed(files):
        file.replace(target.parent / file.name)
    return Exported([target.parent / file.name for file in files], megabytes, proof, loss)
