"""Graft among the contestants of bench/anomaly.py; logs what they log."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from graft.tasks.audit.params import AuditParams
from graft.tasks.audit.stage import run as audit
from graft.tasks.common.core.paths import Paths
from graft.tasks.evaluate.params import EvaluateParams
from graft.tasks.evaluate.stage import run as evaluate
from graft.tasks.features.params import FeaturesParams
from graft.tasks.features.stage import run as features
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.stage import run as finetune
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as head
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.stage import run as preprocess
from graft.tasks.register.params import RegisterParams
from graft.tasks.register.serving import ImageClassifier
from graft.tasks.register.stage import run as register

from .peers.inspection import Job, Log, arguments

SUFFIXES = (".jpg", ".jpeg", ".png")


def main() -> None:
    job, log = arguments(__doc__)
    (build if job.what == "build" else predict)(job, log)
    log.write()


def build(job: Job, log: Log) -> None:
    """From the files on, with nothing cached: the stages up to `head`, whose model is complete; then those that report
    on it and package it, after the clock."""
    paths = Paths(Path(job.model))
    arrange(Path(job.data), paths.raw)
    preprocess(PreprocessParams(), paths, {}, "anomaly")
    features(FeaturesParams(backbone=job.backbone, weights=job.weights, image_size=job.size), paths)
    head(HeadParams(task="anomaly"), paths)
    log.built()
    audit(AuditParams(), paths)
    finetune(FinetuneParams(), paths)
    evaluate(EvaluateParams(), paths)
    register(RegisterParams(), paths)


def arrange(data: Path, raw: Path) -> None:
    """The pictures to learn from, and of the others one of each kind, which the later stages need."""
    shutil.copytree(data / "train", raw / "train")
    for kind in sorted(path for path in (data / "test").iterdir() if path.is_dir()):
        file = min(kind.iterdir())
        (raw / "test" / kind.name).mkdir(parents=True)
        shutil.copyfile(file, raw / "test" / kind.name / file.name)


def predict(job: Job, log: Log) -> None:
    """With the package: twice without maps, twice with them."""
    model = ImageClassifier(Paths(Path(job.model)).package)
    files = sorted(file for file in (Path(job.data) / "test").rglob("*") if file.suffix.lower() in SUFFIXES)
    for maps in (False, False, True, True):
        started = time.perf_counter()
        answers = model.predict(files, maps)
        log.passed(time.perf_counter() - started, maps=maps)
    scores_N = np.array([answer["score"] for answer in answers])
    log.scores([str(file) for file in files], scores_N, np.stack([answer["map"] for answer in answers]))


if __name__ == "__main__":
    main()
