"""anomalib's PatchCore and PaDiM as its `Engine` fits them and predicts, on the backbone's weights that Graft has.

Its defaults (32 images a batch, coreset 10 %, 9 neighbours), but for: the backbone and, for it, the layers of the same
strides; pictures squashed to the same size; no progress bars, and neither thresholds nor metrics nor pictures, which
only cost it time here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize

from .inspection import Job, Log, arguments
from .measurements import BATCH

STRIDES = {"patchcore": [8, 16], "padim": [4, 8, 16]}
"""Of the layers that anomalib takes from a ResNet by default: layer2 and layer3, and layer1 as well."""

KEPT = 100
"""Channels that PaDiM keeps of a small backbone: its default for resnet18."""

OFF = {"post_processor": False, "evaluator": False, "visualizer": False}


def build(job: Job) -> Any:
    """An untrained model with the backbone's weights."""
    import timm

    kind = job.contestant.split("_")[0]
    strides = timm.create_model(job.backbone, features_only=True, pretrained=False).feature_info.reduction()
    layers = [strides.index(stride) for stride in STRIDES[kind]]
    resize = Compose([Resize((job.size, job.size), antialias=True), Normalize(mean=job.mean, std=job.std)])
    common = {"backbone": job.backbone, "layers": layers, "pre_trained": False, "pre_processor": PreProcessor(resize)}
    if kind == "padim":
        model: Any = Padim(n_features=KEPT, **common, **OFF)
    else:
        model = Patchcore(coreset_sampling_ratio=job.coreset, **common, **OFF)
    missing, _ = model.model.feature_extractor.feature_extractor.load_state_dict(load_file(job.weights), strict=False)
    if missing:
        raise SystemExit(f"the backbone lacks weights: {missing[:3]}")
    return model


def engine(job: Job, *callbacks: Callback) -> Engine:
    return Engine(
        callbacks=list(callbacks), accelerator="cpu", default_root_dir=job.model, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip


def fit(job: Job, log: Log) -> None:
    root = Path(job.data)
    defects = sorted(str(path.relative_to(root)) for path in (root / "test").iterdir() if path.name != "good")
    data = Folder(
        name="bench", root=root, normal_dir="train/good", normal_test_dir="test/good", abnormal_dir=defects,
        train_batch_size=BATCH, eval_batch_size=BATCH, num_workers=job.workers, val_split_mode="none", seed=0,
    )  # fmt: skip
    runner = engine(job)
    runner.fit(model=build(job), datamodule=data)
    Path(job.model, "checkpoint.txt").write_text(runner.best_model_path or "", encoding="utf-8")
    log.built()


class Clock(Callback):
    """Seconds from the first file opened to the last score."""

    def on_predict_start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def on_predict_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.started


def predict(job: Job, log: Log) -> None:
    """Twice: the first pass makes what torch keeps."""
    clock = Clock()
    runner, model = engine(job, clock), build(job)
    checkpoint = Path(job.model, "checkpoint.txt").read_text(encoding="utf-8")
    pictures = PredictDataset(Path(job.data) / "test", transform=Resize((job.size, job.size), antialias=True))
    loader = DataLoader(pictures, BATCH, collate_fn=pictures.collate_fn, num_workers=job.workers)
    for _ in range(2):
        batches = runner.predict(model=model, dataloaders=loader, ckpt_path=checkpoint)
        log.passed(clock.seconds)
    maps = np.concatenate([batch.anomaly_map.squeeze(1).numpy() for batch in batches])
    scores = np.concatenate([batch.pred_score.flatten().numpy() for batch in batches])
    log.scores([str(path) for batch in batches for path in batch.image_path], scores, maps)


def openvino(job: Job, log: Log) -> None:
    """Exported to OpenVINO, for anomalib's inferencer. The graph that 2.7.0 exports takes two pictures at a time."""
    from anomalib.deploy import OpenVINOInferencer

    model, size = build(job), (job.size, job.size)
    checkpoint = Path(job.model, "checkpoint.txt").read_text(encoding="utf-8")
    model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])  # our own file
    inferencer = OpenVINOInferencer(model.to_openvino(job.model, input_size=size), device="CPU")
    files = PredictDataset(Path(job.data) / "test").image_filenames
    pairs = [(file, files[min(place + 1, len(files) - 1)]) for place, file in enumerate(files) if place % 2 == 0]
    for _ in range(2):
        started = time.perf_counter()
        answers = [inferencer.predict(np.stack([_opened(file, size) for file in pair])) for pair in pairs]
        log.passed(time.perf_counter() - started)
    scores = np.concatenate([np.asarray(answer.pred_score).reshape(2) for answer in answers])[: len(files)]
    maps = np.concatenate([np.asarray(answer.anomaly_map).reshape(2, *size) for answer in answers])[: len(files)]
    log.scores([str(file) for file in files], scores, maps)


def _opened(file: Any, size: tuple[int, int]) -> Any:
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def main() -> None:
    import anomalib

    job, log = arguments(__doc__)
    torch.manual_seed(0)
    os.chdir(job.model)  # its inferencer leaves a cache where it is started
    {"build": fit, "predict": predict, "openvino": openvino}[job.what](job, log)
    log.write(anomalib=anomalib.__version__)


if __name__ == "__main__":
    main()
