"""The proof of an export: in a fresh process, the file answers as the package does.

N images, K classes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..common.core.errors import DataError, GraftError
from ..common.core.files import read_json
from ..common.core.progress import progress
from ..common.heads.calibration import Calibration
from ..register.packaged_eyes import reading_in
from ..register.serving import ANOMALY, TYPICALITY, ImageClassifier


@dataclass(frozen=True)
class Tolerance:
    """How much a file may differ from its package, because the resize rounds a few values otherwise.

    Attributes:
        same: the least share of images with the same label.
        probability: the largest difference of one.
        number: the same of a predicted number, in standard deviations of these; of a score, in thresholds.
    """

    same: float
    probability: float
    number: float


SINGLE = Tolerance(0.998, 1e-3, 1e-2)
IN_8_BITS = Tolerance(0.99, 5e-2, 1e-1)
"""Of networks in 8 bits, whose every layer rounds: on 153 photographs (lite0) one label and 0.014 differed."""

AT_ONCE = 256
"""Images that the package predicts at a time."""


@dataclass(frozen=True)
class Answers:
    """What a model says about N images, as arrays: as dictionaries, many images of many classes would not fit.

    Attributes:
        output_NK: float32 probabilities; numbers or scores (N, 1).
        decided: int64 classes (N, 1), or zeros and ones (N, K); (N, 0) for numbers; of scores (N, 1), whether
            anomalous.
        typicality_N: or the p-values of scores; NaN without reference images.
        milliseconds_N: for each image; NaN where it was not measured.
    """

    output_NK: npt.NDArray[np.float32]
    decided: npt.NDArray[np.int64]
    typicality_N: npt.NDArray[np.float32]
    milliseconds_N: npt.NDArray[np.float32]

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Answers:
        """From the outputs of a file, see `answer.py`."""
        columns: tuple[list[Any], ...] = ([], [], [], [])
        for row in rows:
            output = _first(row, "probabilities", "value", "score")
            decided = _first(row, "label", "labels", "anomalous", otherwise=[])
            columns[0].append(np.atleast_1d(np.asarray(output, np.float32)))
            columns[1].append(np.atleast_1d(np.asarray(decided, np.int64)))
            columns[2].append(_first(row, TYPICALITY, "p_value", otherwise=np.nan))
            columns[3].append(row.get("milliseconds", np.nan))
        kinds = (np.float32, np.int64, np.float32, np.float32)
        return cls(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def _first(row: dict[str, Any], *names: str, otherwise: Any = None) -> Any:
    """The value of the first of these names that there is."""
    return next((row[name] for name in names if name in row), otherwise)


What = Literal["probability", "number", "score"]

UNITS: dict[What, str] = {"probability": "", "number": " standard deviations", "score": " thresholds"}
"""What a model tells -> the unit of its differences."""


ROUNDING = 1e-5
"""Of single precision, as a share of a score."""


@dataclass(frozen=True)
class Proof:
    """How a file compares with its package.

    Attributes:
        images: N.
        same: the share of images with the same label, labels or verdict; None for numbers.
        difference: the largest one, in the unit of `UNITS`.
        farthest: the image with it.
        milliseconds: the median for one image, without decoding.
        typicality: the largest difference of the p-value, which jumps from one reference image to the next; it is only
            reported. None without one.
    """

    images: int
    same: float | None
    difference: float
    farthest: str
    milliseconds: float
    typicality: float | None = None
    what: What = "probability"

    def holds(self, tolerance: Tolerance) -> bool:
        same = self.same is None or self.same >= tolerance.same
        return same and self.difference <= self.most(tolerance)

    def most(self, tolerance: Tolerance) -> float:
        """The largest difference that is allowed."""
        return tolerance.probability if self.what == "probability" else tolerance.number

    def text(self) -> str:
        label, further = ("verdict", "p-value") if self.what == "score" else ("label", "typicality")
        labels = "" if self.same is None else f"the same {label} for {self.same:.2%} of {self.images:,} images, "
        found = f"{self.difference:.1e}{UNITS[self.what]} ({self.farthest})"
        more = "" if self.typicality is None else f", of the {further} {self.typicality:.1e}"
        return f"{labels}largest difference of a {self.what} {found}{more}"


def prove(
    file: Path, package: Path, images: Sequence[Path], prepare: dict[str, str], tolerance: Tolerance = SINGLE
) -> Proof:
    """Compares the file with the package.

    Args:
        prepare: see `answer.py`; empty for ONNX.

    Raises:
        GraftError: they differ too much, or the file does not run.
    """
    expected, found = predicted(package, images), Answers.of(answered(file, package, images, prepare))
    facts, threshold = read_json(package / "package.json"), Calibration.load(package).threshold
    proof = _compared(expected, found, images, facts["task"], threshold)
    if not proof.holds(tolerance):
        raise GraftError(
            "the exported file does not predict the same as the package; nothing was written",
            got=proof.text(),
            allowed=f"the same label for {tolerance.same:.1%}, and a difference of at most {proof.most(tolerance):g}",
            todo="export with --to openvino, whose pictures Pillow resizes, or another backbone",
        )
    return proof


def predicted(package: Path, images: Sequence[Path]) -> Answers:
    """What the package predicts, by the code of this process: the package's own is not run.

    Raises:
        DataError: an image cannot be read.
    """
    return Answers.of(_predictions(ImageClassifier(package), images))


def _predictions(model: ImageClassifier, images: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """In the form in which a file answers."""
    with progress("export: the package", len(images)) as bar:
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            try:
                answers = model.predict(list(part))
            except ValueError as error:
                raise DataError(
                    "an image of the proof cannot be read", got=_with_name(str(error), part), todo="leave it out"
                ) from error
            yield from (_as_file(answer, model.classes) for answer in answers)
            bar.add(len(part))


def _with_name(message: str, part: Sequence[Path]) -> str:
    """The package knows an image by its number alone."""
    found = re.match(r"input (\d+) ", message)
    return f"{part[int(found[1])]}: {message}" if found else message


def _as_file(answer: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """Without names."""
    if "anomalous" in answer:
        return answer
    row = {key: answer[key] for key in ("value", TYPICALITY) if key in answer}
    if "label" in answer:
        row["label"] = classes.index(answer["label"])
    if "labels" in answer:
        row["labels"] = [name in answer["labels"] for name in classes]
    return row | ({"probabilities": list(answer["probabilities"].values())} if "probabilities" in answer else {})


def answered(file: Path, package: Path, images: Sequence[Path], prepare: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What the file answers, image by image, in a fresh process; with `milliseconds`.

    Raises:
        GraftError: it does not run.
    """
    reading = reading_in(read_json(package / "package.json")).as_dict()
    asked = {"images": [str(image.resolve()) for image in images], "reading": reading, "prepare": prepare}
    command = [sys.executable, "-P", "-m", "graft.tasks.export.answer", str(file.resolve())]
    bar_of = progress("export: the file", len(images))
    with TemporaryFile("w+") as question, TemporaryFile("w+") as errors, bar_of as bar:
        json.dump(asked, question)
        question.seek(0)
        with subprocess.Popen(command, stdin=question, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
                bar.add()
        if process.returncode:
            errors.seek(0)
            raise _failed(errors.read())


def _failed(said: str) -> GraftError:
    return GraftError(
        "the exported file does not run in a fresh process; nothing was written",
        got=(said.strip() or "no message").splitlines()[-1][:300],
        todo="try again; if it fails again, report it with this message",
    )


def _compared(expected: Answers, found: Answers, images: Sequence[Path], task: str, threshold: float | None) -> Proof:
    """Args:
    threshold: for the task anomaly.
    """
    what: What = "number" if task == "regression" else "score" if task == ANOMALY else "probability"
    unit = {"probability": 1.0, "number": float(expected.output_NK.std()), "score": threshold}[what]
    off_N = np.abs(expected.output_NK.astype(np.float64) - found.output_NK).max(axis=1) / (unit or 1.0)
    decides = expected.decided.shape[1] > 0
    same_N = (expected.decided == found.decided).all(axis=1)
    if what == "score" and threshold is not None:  # a score on the threshold falls to either side by rounding
        same_N |= np.abs(expected.output_NK[:, 0] - threshold) <= ROUNDING * abs(threshold)
    same = float(same_N.mean()) if decides else None
    worst = int(np.argmax(np.where(np.isnan(off_N), np.inf, off_N)))
    further = float(np.abs(expected.typicality_N - found.typicality_N).max())
    return Proof(
        images=len(images),
        same=same,
        difference=float(off_N[worst]),
        farthest=images[worst].name,
        milliseconds=float(np.median(found.milliseconds_N)),
        typicality=None if np.isnan(further) else further,
        what=what,
    )
