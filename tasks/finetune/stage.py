"""finetune: trains layers of the backbone if that can pay, and keeps the result only if it is better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.core.files import read_json, whole_folder, write_json
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import Record
from ..common.data.eyes import backbones
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.data.task import MAIN
from ..common.heads.calibration import FILE, Calibration
from ..common.heads.linear import LinearHead
from ..common.heads.load import load_head
from ..common.scoring.main_metric import loss, main_metric
from ..common.scoring.significance import paired_p
from ..common.scoring.temperature import calibrate_like, summary
from .decision import (
    Decision,
    Score,
    enough_minutes,
    more_images,
    whether_it_fits,
    whether_to_keep,
    why_no_start,
    why_not,
    why_not_several,
)
from .params import FinetuneParams

if TYPE_CHECKING:
    from .checkpoint import Course
    from .session import Job

SHEET, SHOWN = "augmentation.png", 6
"""The contact sheet of augmented training images, and how many images it shows."""


def run(params: FinetuneParams, paths: Paths) -> Record:
    """Decides whether to train, trains, and compares the result with the frozen head on validation.

    Raises:
        ParamsError: `mode: on` with several backbones or sizes, with a head that is not linear, or with a backbone that
            cannot be cut as asked.
        WeightsError: the backbone's weights are missing, or differ from those that computed the features.
        DataError: an image has been removed or damaged since it was checked.
        GraftError: not even one image at a time fits into memory.
    """
    pack = read_feature_set(paths.features)
    train, val = pack.rows("train"), pack.rows("val")
    head = load_head(paths.head, "selected")
    output = head.output(pack.features(val))
    frozen = _score(output, pack)
    further = more_images(read_json(paths.audit / "audit.json")["curve"]["doubling"], pack.task)

    def stay(reason: str, minutes: float | None = None) -> Record:
        return _stay(params, paths, len(train), reason, minutes, frozen, further)

    if params.mode != "off" and len(pack.eyes) > 1:
        return stay(why_not_several(params, backbones(pack.fingerprint)))
    if params.mode != "off" and not isinstance(head, LinearHead):
        return stay(why_no_start(params, head.kind))
    reason = why_not(params, len(train), _wrong(output, pack), len(val))
    if reason or not isinstance(head, LinearHead):
        return stay(reason)  # torch is not needed to say no

    from .session import Job
    from .split_network import CannotCut

    try:
        job = Job(params, pack, head, paths, train, val)
    except CannotCut as error:
        if params.mode == "on":
            raise
        return stay(f"{pack.fingerprint['backbone']} cannot be cut for its last stage: {error.got}")
    go, reason, minutes = whether_it_fits(params, job.plan.epochs, len(train), lambda: job.seconds() / 60)
    if not go:
        return stay(reason, minutes)

    say(f"finetune: training {_what(params)}: {_with(reason, minutes)}")
    course = job.run(job.checkpoint(), params.budget_minutes * 60 if params.mode == "auto" else None)
    tuned_output = job.output(val)
    tuned, p = _score(tuned_output, pack), paired_p(output, tuned_output, pack.targets(val), pack.task, params.seed)
    calibration = calibrate_like(
        Calibration.load(paths.head), tuned_output, pack.targets(val), pack.weights(val), pack.task
    )
    chosen, verdict = whether_to_keep(frozen, tuned, p, params.significance, calibration.kept)
    settled = {"layers": params.trained, "init": params.init, **job.settled()}
    decision = Decision(
        params.mode, True, chosen, f"{reason}; {verdict}", len(train), params.budget_minutes,
        {"head": frozen, "finetune": tuned}, p, further, settled,
    )  # fmt: skip
    _write(decision, job, calibration, course, pack, paths)
    job.checkpoint().unlink(missing_ok=True)
    return _record(decision, minutes, course, calibration, paths)


def _score(output: npt.NDArray[np.float64], pack: FeatureSet) -> Score:
    """The score of these outputs for the validation images."""
    val = pack.rows("val")
    target = pack.targets(val)
    return Score(main_metric(output, target, pack.task), loss(output, target, pack.task, pack.weights(val)), pack.task)


def _wrong(output: npt.NDArray[np.float64], pack: FeatureSet) -> int | None:
    if pack.task != "classification":
        return None
    return int(np.count_nonzero(output.argmax(axis=1) != pack.targets(pack.rows("val"))))


def _stay(
    params: FinetuneParams,
    paths: Paths,
    train_images: int,
    reason: str,
    minutes: float | None,
    frozen: Score,
    further: str,
) -> Record:
    advice = f"; to train, set `finetune.budget_minutes: {enough_minutes(minutes)}`" if minutes else ""
    say(f"finetune: the frozen head stays: {_with(reason, minutes)}{advice}")
    decision = Decision(
        params.mode, False, "head", reason, train_images, params.budget_minutes, {"head": frozen}, more_images=further
    )
    with whole_folder(paths.finetune) as folder:
        write_json(folder / "decision.json", decision.to_dict())
    return _record(decision, minutes, None, None, paths)


def _what(params: FinetuneParams) -> str:
    layers = {"all": "all layers", "last_stage": "the last stage", "norm": "the norm layers"}[params.trained]
    return layers if params.init == "pretrained" else f"{layers} from scratch"


def _with(reason: str, minutes: float | None) -> str:
    """The reason with the measured time, for people and for MLflow; decision.json must not depend on it."""
    return reason if minutes is None else f"{reason} ({minutes:.1f} minutes predicted)"


def _write(
    decision: Decision, job: Job, calibration: Calibration, course: Course, pack: FeatureSet, paths: Paths
) -> None:
    """decision.json; head.*; calibration.json; graph/ (the fine-tuned backbone for inference); network.safetensors;
    curves.csv; the contact sheet."""
    from safetensors.torch import save_file

    from ..common.backbones import network
    from ..common.backbones.graph import convert
    from ..common.backbones.weights import WeightsSource
    from .augmented import augmented_sheet

    spec = Spec.from_dict(pack.fingerprint)
    backbone = job.network()
    with whole_folder(paths.finetune) as folder:
        write_json(folder / "decision.json", decision.to_dict())
        job.head().save(folder)
        calibration.save(folder)
        state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
        save_file(state, folder / "network.safetensors")
        tuned = WeightsSource("finetuned", spec.weights)
        found = network.spec_of(backbone, spec.backbone, tuned, spec.form)
        convert(backbone, replace(found, transform=spec.transform), folder / "graph")
        pd.DataFrame(course.rows).to_csv(folder / "curves.csv", index=False)
        augmented_sheet(_shown(pack, paths), job.augment, spec.transform, job.plan.epochs, folder / SHEET)


def _record(
    decision: Decision, minutes: float | None, course: Course | None, calibration: Calibration | None, paths: Paths
) -> Record:
    metrics: dict[str, Any] = {
        "ran": decision.ran,
        "train_images": decision.train_images,
        "predicted_minutes": minutes,
        "validation": {name: score.named() for name, score in decision.validation.items()},
    }
    files = [paths.finetune / "decision.json"]
    curves: dict[str, list[tuple[int, float]]] = {}
    if calibration is not None:
        metrics["calibration"] = summary(calibration)
        files.append(paths.finetune / FILE)
    if course is not None:
        metrics |= {
            "p": decision.p,
            "epochs": len(course.rows),
            "best_epoch": course.best_epoch,
            "training_seconds": course.seconds,
            "preparation_seconds": course.preparation,
            "ended": course.ended,
        }
        metrics["images_per_second"] = decision.train_images * len(course.rows) / course.seconds
        main = MAIN[decision.validation["head"].task]
        curves = {
            name: [(int(row["epoch"]), row[name]) for row in course.rows]
            for name in ("train_loss", "val_loss", f"val_{main.key}")
        }
        curves["seconds"] = list(enumerate(course.laps))
        files += [paths.finetune / "curves.csv", paths.finetune / SHEET]
    facts = {"chosen": decision.chosen, "reason": _with(decision.reason, minutes), "more_images": decision.more_images}
    for name, value in (decision.settled or {}).items():
        facts[name] = f"{value}"
    return Record(metrics=metrics, facts=facts, curves=curves, files=files)


def _shown(pack: FeatureSet, paths: Paths) -> list[tuple[Any, str, str]]:
    """(file, image_id, label) of a few training images, spread over all rows."""
    train = pack.rows("train")
    rows = train[np.unique(np.linspace(0, len(train) - 1, SHOWN).astype(np.int64))]
    index = pack.index.iloc[rows]
    return [
        (paths.raw / path, image_id, str(label))
        for path, image_id, label in zip(index["path"], index["image_id"], index["label"], strict=True)
    ]
