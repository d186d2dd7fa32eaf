"""Networks in 8 bits: quantised after training by NNCF, and accepted only if a paired test shows no larger loss than
allowed. N images, K classes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.errors import DataError, GraftError
from ..common.core.files import read_json
from ..common.core.progress import say
from ..common.data.task import METRICS, Task, names_in
from ..common.heads.calibration import Calibration
from ..common.images.transform import EvalTransform, load
from ..common.scoring.paired import Outcome, Paired, compare, outcome
from ..register.packaged_eyes import eyes_in, reading_in
from ..register.serving import ANOMALY, RECONSTRUCTION
from .proof import predicted

IMAGES = 300
"""Training images whose activations set the ranges; NNCF's own default."""


@dataclass(frozen=True)
class Exam:
    """Images to quantise with, and to decide on.

    Attributes:
        train: files of training images.
        held_out: files of the N validation images.
        labels: theirs, as the manifest has them.
        unit_N: the unit of each of them, see `data/units.py`.
        max_loss: the largest loss of the metric, in hundredths.
    """

    train: list[Path]
    held_out: list[Path]
    labels: list[Any]
    unit_N: npt.NDArray[np.int64]
    max_loss: float


def quantised_package(package: Path, train: Sequence[Path], folder: Path) -> None:
    """Fills `folder` with a copy of the package whose graphs compute in 8 bits."""
    facts = read_json(package / "package.json")
    shutil.copytree(package, folder)
    for eye in eyes_in(facts):
        transform, reading = EvalTransform.from_dict(eye["transform"]), reading_in(facts)
        chosen = _spread(train)
        say(f"export: quantising {eye['graph']} on {len(chosen)} training images")
        _quantise(folder / f"{eye['graph']}.xml", [load(file, None, transform, reading)[None] for file in chosen])


def _spread(files: Sequence[Path]) -> list[Path]:
    """At most `IMAGES` of them, the same every time, in an order that mixes the classes."""
    order = np.random.default_rng(0).permutation(len(files))[:IMAGES]
    return [files[place] for place in order]


def _quantise(graph: Path, batches: list[npt.NDArray[np.uint8]]) -> None:
    """Replaces a graph. What NNCF prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        import nncf
        import openvino as ov

        nncf.set_log_level(logging.ERROR)
        model = ov.Core().read_model(graph)
        attends = any(each.get_type_name() in ("Softmax", "ScaledDotProductAttention") for each in model.get_ops())
        quantised = nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
        )
    part = graph.with_name(f"quantised-{graph.name}")
    ov.save_model(quantised, part, compress_to_fp16=False)
    del model, quantised  # they map the files
    for suffix in (".bin", ".xml"):
        part.with_suffix(suffix).replace(graph.with_suffix(suffix))


def compared(package: Path, quantised: Path, exam: Exam) -> Paired:
    """Both packages on the validation images, by the first metric of the task."""
    facts, calibration = read_json(package / "package.json"), Calibration.load(package)
    target, task = _targets(exam.labels, facts["classes"], facts["task"]), facts["task"]
    metric = METRICS[task][0].key
    output = {
        folder: calibration.judged(predicted(folder, exam.held_out).output_NK.astype(np.float64), metric)
        for folder in {package, quantised}
    }
    return compare(output[package], output[quantised], target, exam.unit_N, task, metric=metric)


def check_enough(package: Path, exam: Exam) -> None:
    """Whether a model that changes no prediction would be accepted: quantising takes longer than this.

    Raises:
        GraftError: there are too few validation images, or the task is anomaly or reconstruction.
    """
    task = read_json(package / "package.json")["task"]
    if task == RECONSTRUCTION:
        raise GraftError(
            "a model for reconstruction is not exported in 8 bits",
            got="--precision int8",
            todo="leave --precision out",
        )
    if task == ANOMALY:
        raise GraftError(
            "a model for anomaly is not exported in 8 bits: rounding moves its scores, and with them the false alarms",
            got="--precision int8",
            todo="leave --precision out",
        )
    found = compared(package, package, exam)
    verdict = outcome(found, exam.max_loss / 100)
    if verdict.says == "too few":
        raise GraftError(
            "there are too few validation images to show that a model in 8 bits loses no more than allowed",
            got=f"{found.images:,}, with which even a model without a change may lose {-100 * found.low:.2f} points",
            allowed=f"a loss of at most {exam.max_loss:g} points, with 95 % confidence",
            todo=_todo(verdict),
        )


def check_loss(found: Paired, exam: Exam) -> None:
    """Whether no more is lost than allowed.

    Raises:
        GraftError: the comparison does not show it.
    """
    verdict = outcome(found, exam.max_loss / 100)
    if verdict.says not in ("better", "not worse"):
        raise GraftError(
            "the model may lose too much in 8 bits; nothing was written",
            got=f"{told(found)}; with 95 % confidence a loss of up to {-100 * found.low:.2f} points",
            allowed=f"a loss of at most {exam.max_loss:g} points",
            todo=_todo(verdict),
        )


def _todo(verdict: Outcome) -> str:
    more = f", or add validation images: about {verdict.more:,} more would tell" if verdict.more else ""
    return f"export with --precision f32, or allow more with --max-loss{more}"


def told(found: Paired) -> str:
    """Both metrics."""
    name, of = found.metric.title, found.metric.text
    return f"{name} {of(found.second)} in 8 bits, {of(found.first)} before, on {found.images:,} validation images"


def _targets(labels: Sequence[Any], classes: list[str], task: Task) -> npt.NDArray[Any]:
    """As `FeatureSet.targets` gives them."""
    if task == "regression":
        return np.array(labels, np.float64)
    has = {name: k for k, name in enumerate(classes)}
    named = [[str(label)] if task == "classification" else names_in(str(label)) for label in labels]
    unknown = sorted({name for names in named for name in names} - has.keys())
    if unknown:
        raise DataError(
            "validation images have classes that the model does not know", got=", ".join(unknown), todo="retrain it"
        )
    if task == "classification":
        return np.array([has[name] for (name,) in named], np.int64)
    y_NK = np.zeros((len(named), len(classes)))
    for i, names in enumerate(named):
        y_NK[i, [has[name] for name in names]] = 1.0
    return y_NK
