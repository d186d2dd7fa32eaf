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
from ..common.data.feature_set import FeatureSet, Rows, read_feature_set
from ..common.data.task import metric_named
from ..common.data.units import units_of
from ..common.heads.calibration import FILE, Calibration
from ..common.heads.linear import LinearHead
from ..common.heads.load import load_head
from ..common.scoring.main_metric import metric_of
from ..common.scoring.temperature import calibrate_like, summary
from .decision import Decision, Score, enough_minutes, more_images, why_no_start, why_not, why_not_several
from .keep import Held, Rule, Verdict, scaled_losses, whether_to_keep
from .lessons import folds_of, weighed
from .params import FinetuneParams

if TYPE_CHECKING:
    from .checkpoint import Course
    from .order import Elsewhere
    from .session import Job

SHEET, SHOWN = "augmentation.png", 6
"""The contact sheet of augmented training images, and how many images it shows."""


FROZEN = ("anomaly", "reconstruction")
"""The tasks without fine-tuning."""


def run(params: FinetuneParams, paths: Paths, elsewhere: Elsewhere | None = None) -> Record:
    """Decides whether to train, trains, and compares the result with the frozen head on held-out images.

    Args:
        elsewhere: trains on other machines; none: this one trains.

    Raises:
        ParamsError: `mode: on` with several backbones or sizes, with a head that is not linear, or with a backbone that
            cannot be cut as asked.
        WeightsError: the backbone's weights are missing, or differ from those that computed the features.
        DataError: an image has been removed or damaged since it was checked.
        GraftError: not even one image at a time fits into memory.
    """
    pack = read_feature_set(paths.features)
    if pack.task in FROZEN:
        return _without_training(params, paths, pack)
    facts = read_json(paths.head / "selected.json")
    train, val = pack.rows("train"), pack.rows("val")
    head, metric = load_head(paths.head, "selected"), facts.get("metric", "auto")
    output = head.output(pack.matrix(val))
    own = weighed(pack, facts.get("class_weights"))
    frozen = _score(output, _held(own, val), metric)
    further = more_images(read_json(paths.audit / "audit.json")["curve"]["doubling"], pack.task)

    def stay(reason: str, minutes: float | None = None) -> Record:
        return _stay(params, paths, pack, reason, minutes, frozen, further)

    if params.mode != "off" and len(pack.eyes) > 1:
        return stay(why_not_several(params, backbones(pack.fingerprint)))
    if params.mode != "off" and not isinstance(head, LinearHead):
        return stay(why_no_start(params, head.kind))
    held_images = len(train) + len(val) if folds_of(params, pack) else len(val)
    reason = why_not(params, len(train), _wrong(output, pack), len(val), held_images)
    if reason:
        return stay(reason)  # torch is not needed to say no

    from .lecture import Lecture
    from .split_network import CannotCut

    try:
        lecture = Lecture(params, own, facts, paths, elsewhere)
    except CannotCut as error:
        if params.mode == "on":
            raise
        return stay(f"{pack.fingerprint['backbone']} cannot be cut for its last stage: {error.got}")
    go, reason, minutes = lecture.plan()
    if not go:
        return stay(reason, minutes)

    say(f"finetune: training {_what(params)}: {_with(reason, minutes)}")
    course = lecture.learn()
    found = lecture.held_out(head)
    held, asked = _held(own, found.rows), Calibration.load(paths.head)
    calibration = calibrate_like(asked, found.tuned, held.target, pack.weights(found.rows), pack.task, held.unit_N)
    rule = Rule(metric, params.significance, params.margin)
    verdict = whether_to_keep(found.head, found.tuned, held, rule, calibration.kept)
    refitted = verdict.chosen == "finetune" and params.refits
    decision = Decision(
        params.mode, True, verdict.chosen, f"{reason}; {verdict.reason}", len(train), params.budget_minutes,
        _scores(verdict, held), _counted(held, found.folds), verdict.p, verdict.paired.p_better, verdict.p_loss,
        further, refitted, _settled(params, lecture.job, course),
    )  # fmt: skip
    job = lecture.refit(course) if refitted else lecture.job
    _write(decision, job, calibration, course, pack, paths)
    lecture.forget()
    return _record(decision, minutes, course, calibration, lecture.seconds, paths)


def _held(pack: FeatureSet, rows: Rows) -> Held:
    """Args:
    pack: with the weights of images and classes.
    """
    return Held(pack.targets(rows), pack.weights(rows), units_of(pack, rows)[0], pack.task)


def _score(output: npt.NDArray[np.float64], held: Held, metric: str) -> Score:
    named = metric_named(metric, held.task)
    loss = float(np.average(scaled_losses(output, held), weights=held.weight_N))
    return Score(metric_of(output, held.target, named.key, held.task), loss, named, held.task)


def _scores(verdict: Verdict, held: Held) -> dict[str, Score]:
    paired = verdict.paired
    return {
        "head": Score(paired.first, verdict.head_loss, paired.metric, held.task),
        "finetune": Score(paired.second, verdict.tuned_loss, paired.metric, held.task),
    }


def _counted(held: Held, folds: int) -> dict[str, int]:
    return {"images": len(held.unit_N), "units": len(np.unique(held.unit_N)), "folds": folds}


def _settled(params: FinetuneParams, job: Job, course: Course) -> dict[str, Any]:
    """The values that `auto` stood for in the training."""
    chosen = {"learning_rate": course.rate, "epochs": course.schedule.epochs}
    return {"layers": params.trained, "init": params.init, **job.settled(), **chosen}


def _wrong(output: npt.NDArray[np.float64], pack: FeatureSet) -> int | None:
    if pack.task != "classification":
        return None
    return int(np.count_nonzero(output.argmax(axis=1) != pack.targets(pack.rows("val"))))


def _stay(
    params: FinetuneParams,
    paths: Paths,
    pack: FeatureSet,
    reason: str,
    minutes: float | None,
    frozen: Score,
    further: str,
) -> Record:
    advice = f"; to train, set `finetune.budget_minutes: {enough_minutes(minutes)}`" if minutes else ""
    say(f"finetune: the frozen head stays: {_with(reason, minutes)}{advice}")
    decision = Decision(
        params.mode, False, "head", reason, len(pack.rows("train")), params.budget_minutes, {"head": frozen},
        _counted(_held(pack, pack.rows("val")), 0), more_images=further,
    )  # fmt: skip
    return _note(decision, minutes, paths)


def _without_training(params: FinetuneParams, paths: Paths, pack: FeatureSet) -> Record:
    """Whatever `finetune.mode` is: good images alone say nothing about what to change in a network, and a decoder takes
    the maps of a frozen one."""
    reason = f"the task {pack.task} has no fine-tuning"
    say(f"finetune: the frozen head stays: {reason}")
    counted = _counted(_held(pack, pack.rows("val")), 0)
    train = len(pack.rows("train"))
    return _note(Decision(params.mode, False, "head", reason, train, params.budget_minutes, {}, counted), None, paths)


def _note(decision: Decision, minutes: float | None, paths: Paths) -> Record:
    with whole_folder(paths.finetune) as folder:
        write_json(folder / "decision.json", decision.to_dict())
    return _record(decision, minutes, None, None, 0.0, paths)


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
        job.head().save(folder, refitted=decision.refitted)
        calibration.save(folder)
        state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
        save_file(state, folder / "network.safetensors")
        tuned = WeightsSource("finetuned", spec.weights)
        found = network.spec_of(backbone, spec.backbone, tuned, spec.form)
        convert(backbone, replace(found, transform=spec.transform), folder / "graph")
        pd.DataFrame(course.rows).to_csv(folder / "curves.csv", index=False)
        augmented_sheet(_shown(pack, paths), job.augment, spec.transform, pack.reading, job.plan.epochs, folder / SHEET)


def _record(
    decision: Decision,
    minutes: float | None,
    course: Course | None,
    calibration: Calibration | None,
    seconds: float,
    paths: Paths,
) -> Record:
    """Args:
    seconds: of all trainings.
    """
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
            "training_seconds": seconds,
            "preparation_seconds": course.preparation,
            "ended": course.ended,
        }
        metrics["images_per_second"] = decision.train_images * len(course.rows) / course.seconds
        names = [name for name in course.rows[0] if name != "epoch"]
        curves = {name: [(int(row["epoch"]), row[name]) for row in course.rows] for name in names}
        curves["seconds"] = list(enumerate(course.laps))
        files += [paths.finetune / "curves.csv", paths.finetune / SHEET]
    facts = {
        "chosen": decision.chosen,
        "reason": _with(decision.reason, minutes),
        "more_images": decision.more_images,
        "refitted": f"{decision.refitted}",
    }
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
