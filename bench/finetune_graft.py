"""Graft as a trainer among the others of bench/finetune.py; logs what they log."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import load_file

from graft.tasks.common.backbones.network import eval_transform
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.features.params import FeaturesParams
from graft.tasks.features.stage import run as features
from graft.tasks.finetune.auto_rules import plan as planned
from graft.tasks.finetune.batches import Images
from graft.tasks.finetune.inputs import as_maps, normalised
from graft.tasks.finetune.loss import Goal
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.session import Job
from graft.tasks.finetune.split_network import cut, last_stage
from graft.tasks.finetune.trainer import Trainer
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as head
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.stage import run as preprocess

from .peers.course import WARM, Course, Plan, arguments
from .peers.measurements import BATCH

LAYERS = "BENCH_LAYERS"
"""The variable with `finetune.layers`."""


def main() -> None:
    plan, what, course = arguments(__doc__)
    params = FinetuneParams(mode="on", layers=os.environ[LAYERS], epochs=plan.epochs or "auto")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(dir=Path(plan.weights).parent) as folder:
        paths = Paths(Path(folder))
        if what == "rate":
            course.write(pure=pure_rate(plan, params), from_files=rate_from_files(plan, params, paths), **facts())
        else:
            epochs = accuracy(plan, params, course, paths)
            course.write(**facts(), epochs=str(epochs))


def facts() -> dict[str, str]:
    return {"torch": torch.__version__, "timm": timm.__version__}


def up_to_head(plan: Plan, paths: Paths) -> None:
    arrange(plan, paths)
    preprocess(PreprocessParams(), paths, {}, "classification")
    features(FeaturesParams(backbone=plan.backbone, image_size=plan.size), paths)
    head(HeadParams(), paths)


def accuracy(plan: Plan, params: FinetuneParams, course: Course, paths: Paths) -> int:
    """From the image files on, with nothing cached: the stages up to `head`, and the training of `finetune`, which
    chooses its epoch by the images held out, as the others do. The number of epochs that it took."""
    up_to_head(plan, paths)
    course.epoch(_head_accuracy(paths))
    pack = read_feature_set(paths.features)
    started = course.since_start()
    job = Job(params, pack, load_linear_head(paths.head, "selected"), paths, pack.rows("train"), pack.rows("val"))
    found = job.run(job.checkpoint(), None)
    ready = course.since_start() - started - found.laps[-1]  # all that is not an epoch: the maps
    for seconds, row in zip(found.laps, found.rows, strict=True):
        course.epoch(row["inner_accuracy"], started + ready + seconds)
    return len(found.laps)


def _head_accuracy(paths: Paths) -> float:
    """On the held-out images, of the head that has not seen them."""
    pack = read_feature_set(paths.features)
    held = pack.rows("val")
    found = load_linear_head(paths.head, "selected").predict_proba(pack.features(held)).argmax(axis=1)
    return float((found == pack.targets(held)).mean())


def arrange(plan: Plan, paths: Paths) -> None:
    """The images as a table with the plan's splits; one image a class, which no one else sees, is the test's."""
    paths.raw.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for split, listed in (("train", plan.train), ("val", plan.held), ("test", plan.test)):
        for file, label in listed:
            name = f"{len(rows)}{Path(file).suffix}"
            shutil.copyfile(file, paths.raw / name)
            rows.append({"path": name, "label": plan.classes[label], "split": split})
    pd.DataFrame(rows).to_csv(paths.raw / "labels.csv", index=False)


def rate_from_files(plan: Plan, params: FinetuneParams, paths: Paths) -> float:
    """Of steps on images that are decoded and augmented meanwhile, as in the first epoch; or on maps, which are read
    from the disk. Of maps there is one view an image: what a step costs does not depend on how many there are."""
    count = BATCH * (WARM + plan.steps)
    up_to_head(replace(plan, train=plan.train[:count], held=plan.held[:BATCH]), paths)
    pack = read_feature_set(paths.features)
    train, val = pack.rows("train"), pack.rows("val")
    few = params.model_copy(update={"views": 1})
    job = Job(few, pack, load_linear_head(paths.head, "selected"), paths, train, val)
    job._source.prepare()
    return job._trainer.rate(job._source.images(train), plan.steps)


def pure_rate(plan: Plan, params: FinetuneParams) -> float:
    """Of steps on images, or maps, that are there."""
    model: Any = timm.create_model(plan.backbone, pretrained=False, num_classes=0)
    model.load_state_dict(load_file(plan.weights))
    shape, k = (3, plan.size, plan.size), len(plan.classes)
    last = np.zeros((k, model.num_features), np.float32), np.zeros(k, np.float32)
    count = BATCH * (WARM + plan.steps)
    body, feed, inputs = model, normalised(eval_transform(model)), np.zeros((plan.size, plan.size, 3), np.uint8)
    example = torch.zeros(2, *shape)
    if params.layers == "last_stage":
        _, body = cut(model, last_stage(model, shape), shape)
        feed, inputs = as_maps(body.shape), np.zeros(int(np.prod(body.shape)), np.float16)
        example = torch.zeros(2, *body.shape)
    target = np.arange(count) % k
    trainer = Trainer(
        body, last, feed, example, params, planned(params, count), Goal("classification", params.label_smoothing)
    )
    return trainer.rate(Images(lambda i, epoch: inputs, target, np.ones(count)), plan.steps)


if __name__ == "__main__":
    main()
