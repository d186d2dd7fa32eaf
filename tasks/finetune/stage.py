"""finetune: all layers trained, if that can pay, and kept only if it did."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.backbones.weights import same_weights
from ..common.calibrating import calibrate_like, summary
from ..common.calibration import FILE, Calibration
from ..common.files import whole_folder, write_json
from ..common.heads import Head, LinearHead, load_head
from ..common.images import EvalTransform, load
from ..common.metrics import loss, main_figure
from ..common.pack import Pack, read_pack
from ..common.paths import Paths
from ..common.progress import say
from ..common.record import Record
from ..common.task import MAIN
from .decision import Decision, Score, whether_to_keep, whether_to_train, why_no_start
from .params import FinetuneParams

if TYPE_CHECKING:
    from .train import Course, Images, Trainer


def run(params: FinetuneParams, paths: Paths) -> Record:
    """Decides, trains if so decided, compares with the frozen head on validation.

    Raises:
        ParamsError: it is to train, from a head that is not linear.
        WeightsError: the backbone's weights are gone, or are others than the features were made with.
        DataError: an image is gone or damaged since it was checked.
    """
    pack = read_pack(paths.features)
    head = load_head(paths.head, "selected")
    frozen = _score_of_head(head, pack)
    train_images = len(pack.rows("train"))
    if params.mode == "off" or (params.mode == "auto" and train_images < params.min_images):
        _, reason, minutes = whether_to_train(params, train_images, lambda: 0.0)  # torch is not needed to say no
        return _stay(params, paths, train_images, reason, minutes, frozen)
    if not isinstance(head, LinearHead):
        return _stay(params, paths, train_images, why_no_start(params, head.kind), None, frozen)

    spec = Spec.from_dict(pack.fingerprint)
    trainer, train, val = _set_up(params, paths, pack, head, spec)
    go, reason, minutes = whether_to_train(
        params, train_images, lambda: trainer.seconds_per_image(train) * train_images * params.epochs / 60
    )
    if not go:
        return _stay(params, paths, train_images, reason, minutes, frozen)

    say(f"finetune: training all layers: {_with(reason, minutes)}")
    checkpoint = paths.checkpoints / f"finetune-{_digest(params, pack, head)}.pt"
    course = trainer.run(train, val, checkpoint, params.budget_minutes * 60 if params.mode == "auto" else None)
    output = trainer.output(val)
    tuned = _score(output, pack)
    calibration = calibrate_like(Calibration.load(paths.head), output, val.target, val.weight_N, pack.task)
    chosen, verdict = whether_to_keep(frozen, tuned, calibration.kept)
    decision = Decision(
        params.mode, True, chosen, f"{reason}; {verdict}", train_images, params.budget_minutes,
        {"head": frozen, "finetune": tuned},
    )  # fmt: skip
    _write(decision, trainer, calibration, course, spec, pack.classes, paths)
    checkpoint.unlink(missing_ok=True)
    return _record(decision, minutes, course, calibration, paths)


def _score_of_head(head: Head, pack: Pack) -> Score:
    return _score(head.output(pack.features(pack.rows("val"))), pack)


def _score(output: npt.NDArray[np.float64], pack: Pack) -> Score:
    """Of what is said of the validation images."""
    val = pack.rows("val")
    target = pack.targets(val)
    return Score(main_figure(output, target, pack.task), loss(output, target, pack.task, pack.weights(val)), pack.task)


def _stay(
    params: FinetuneParams, paths: Paths, train_images: int, reason: str, minutes: float | None, frozen: Score
) -> Record:
    say(f"finetune: the frozen head stays: {_with(reason, minutes)}")
    decision = Decision(params.mode, False, "head", reason, train_images, params.budget_minutes, {"head": frozen})
    with whole_folder(paths.finetune) as folder:
        write_json(folder / "decision.json", decision.to_dict())
    return _record(decision, minutes, None, None, paths)


def _with(reason: str, minutes: float | None) -> str:
    """The reason with what was measured, for people and for the record; decision.json must not differ with it."""
    return reason if minutes is None else f"{reason} ({minutes:.1f} minutes predicted)"


def _set_up(
    params: FinetuneParams, paths: Paths, pack: Pack, head: LinearHead, spec: Spec
) -> tuple[Trainer, Images, Images]:
    from ..common.augment import Augment
    from ..common.backbones import network
    from .goal import Goal
    from .train import Images, Trainer

    backbone = network.create_again(spec, same_weights(spec.backbone, spec.weights, spec.weights_sha256, paths.weights))
    train, val = pack.rows("train"), pack.rows("val")
    goal = Goal.of(pack.task, pack.targets(train), params.label_smoothing)
    trainer = Trainer(backbone, head, spec.transform, params, goal)
    augment = Augment(
        spec.transform, crop_scale=params.crop_scale, flip=params.flip, colour=params.colour, seed=params.seed
    )
    files, ids = list(pack.index["path"]), list(pack.index["image_id"])
    transform: EvalTransform = spec.transform
    return (
        trainer,
        Images(
            lambda i, epoch: augment(paths.raw / files[train[i]], ids[train[i]], epoch),
            pack.targets(train),
            pack.weights(train),
        ),
        Images(lambda i, _: load(paths.raw / files[val[i]], transform), pack.targets(val), pack.weights(val)),
    )


def _digest(params: FinetuneParams, pack: Pack, head: LinearHead) -> str:
    """Names the checkpoint: another recipe, other images or another head must not go on from it."""
    digest = hashlib.sha256(params.model_dump_json(exclude={"mode", "budget_minutes"}).encode())
    digest.update(pack.fingerprint["digest"].encode())
    digest.update(pack.index[["image_id", "label", "task", "split"]].to_csv(index=False).encode())
    digest.update(head.weight.tobytes())
    return digest.hexdigest()[:32]


def _write(
    decision: Decision,
    trainer: Trainer,
    calibration: Calibration,
    course: Course,
    spec: Spec,
    classes: list[str],
    paths: Paths,
) -> None:
    """decision.json; head.*; calibration.json; graph/ (the fine-tuned backbone, ready to infer); network.safetensors;
    curves.csv."""
    from safetensors.torch import save_file

    from ..common.backbones import network
    from ..common.backbones.graph import convert
    from ..common.backbones.weights import WeightsSource

    backbone = trainer.backbone.cpu().eval()
    with whole_folder(paths.finetune) as folder:
        write_json(folder / "decision.json", decision.to_dict())
        trainer.head(classes).save(folder)
        calibration.save(folder)
        state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
        save_file(state, folder / "network.safetensors")
        tuned = WeightsSource("finetuned", spec.weights)
        convert(backbone, network.spec_of(backbone, spec.backbone, tuned, spec.form), folder / "graph")
        pd.DataFrame(course.rows).to_csv(folder / "curves.csv", index=False)


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
            "epochs": len(course.rows),
            "best_epoch": course.best_epoch,
            "training_seconds": course.seconds,
            "ended": course.ended,
        }
        metrics["images_per_second"] = decision.train_images * len(course.rows) / course.seconds
        main = MAIN[decision.validation["head"].task]
        curves = {
            name: [(int(row["epoch"]), row[name]) for row in course.rows]
            for name in ("train_loss", "val_loss", f"val_{main.key}")
        }
        files.append(paths.finetune / "curves.csv")
    return Record(
        metrics=metrics,
        facts={"chosen": decision.chosen, "reason": _with(decision.reason, minutes)},
        curves=curves,
        files=files,
    )
