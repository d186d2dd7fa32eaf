"""Seconds of the stages `head` and `audit` for many classes of three images, beside scikit-learn at one strength.

    python -m bench.many_classes                 10, 100 and 1,000 classes; prints a table
    python -m bench.many_classes --classes 10 100

Features are generated: clusters of 1,280 values, as many as `tf_efficientnet_lite0` gives; so are the images of 32
pixels that the audit looks at. One image of each class is for training, one for validation and one for test. Seconds
are of the processor, all threads together, so that other work on the machine counts little. scikit-learn's
LogisticRegression, with its default tolerance, learns once from the training and validation images, standardised as
Graft does it, at the strength that the head chose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from graft.tasks.audit.params import AuditParams
from graft.tasks.audit.stage import run as audit
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.solvers.principal_axes import standard
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as train_head

from .processes import BUILD, ROOT, Failed, environment, say

CLASSES, SPLITS, FEATURES, SIDE = (10, 100, 1_000), ("train", "val", "test"), 1_280, 32

APART = 0.5
"""The distances between the centres of classes, in units of those between images of a class."""

FINGERPRINT = {
    "backbone": "generated",
    "engine": "openvino",
    "precision": "f32",
    "form": {"channels": 3},
    "transform": {"width": SIDE, "height": SIDE, "crop_mode": "center"},
    "weights_sha256": "generated",
    "digest": "generated",
}


def make(paths: Paths, k: int) -> None:
    """A project of k classes whose features are extracted."""
    rng = np.random.default_rng(0)
    code_N = np.repeat(np.arange(k), len(SPLITS))
    spread_D = np.arange(1, FEATURES + 1.0) ** -0.5
    centre_KD = APART * rng.standard_normal((k, FEATURES)) * spread_D
    features_ND = centre_KD[code_N] + rng.standard_normal((len(code_N), FEATURES)) * spread_D
    mixed_DD = np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0]
    paths.features.mkdir(parents=True)
    np.save(paths.features / "features.npy", (features_ND @ mixed_DD).astype(np.float32))
    np.save(paths.features / "views.npy", np.zeros((0, FEATURES), np.float32))
    files = [f"{code:04}/{place % len(SPLITS)}.png" for place, code in enumerate(code_N)]
    ids = [
        draw(paths.raw / file, int(code), place) for place, (file, code) in enumerate(zip(files, code_N, strict=True))
    ]
    index = {"image_id": ids, "path": files, "label": [f"{code:04}" for code in code_N], "task": "classification"}
    table = pd.DataFrame({**index, "split": np.tile(SPLITS, k), "group": None, "weight": 1.0, "pixels": ids})
    write_table(table, paths.features / "index.parquet")
    (paths.features / "fingerprint.json").write_text(json.dumps(FINGERPRINT), encoding="utf-8")
    Reading().save(paths.features)


def draw(file: Path, code: int, place: int) -> str:
    """Writes a smooth picture that no other place gives, in the colour of the class; returns its md5."""
    colour = np.random.default_rng([1, code]).integers(60, 196, 3)
    coarse = colour + np.random.default_rng([2, place]).integers(-60, 60, (4, 4, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file)
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def scikit(paths: Paths) -> None:
    """Learns once from the training and validation images."""
    from sklearn.linear_model import LogisticRegression

    pack, l2 = read_feature_set(paths.features), json.loads((paths.head / "head.json").read_text("utf-8"))["l2"]
    rows = pack.rows("train", "val")
    features_ND = pack.features(rows)
    mean_D, scale_D = standard(features_ND, np.ones(len(rows)))
    standardised_ND: npt.NDArray[np.float32] = ((features_ND - mean_D) / scale_D).astype(np.float32)
    LogisticRegression(C=1 / (len(rows) * l2), max_iter=1_000).fit(standardised_ND, pack.labels(rows))


STEPS: dict[str, Callable[[Paths], object]] = {
    "head": lambda paths: train_head(HeadParams(), paths),
    "audit": lambda paths: audit(AuditParams(), paths),
    "scikit-learn": scikit,
}
"""What a process of its own does with a project."""


def seconds(step: str, folder: Path) -> float:
    """Of the processor, for a process from its start to its end.

    Raises:
        Failed: it ended with another code than 0.
    """
    words = [sys.executable, "-m", "bench.many_classes", "--step", step, str(folder)]
    child = subprocess.Popen(words, cwd=ROOT, env=environment())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed(f"{step} in {folder} ended with {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(k: int) -> list[float]:
    """Seconds of each of `STEPS` for k classes."""
    folder = BUILD / f"classes-{k}"
    shutil.rmtree(folder, ignore_errors=True)
    make(Paths(folder), k)
    found = []
    for step in STEPS:
        found.append(seconds(step, folder))
        say(f"{k:,} classes: {step} {found[-1]:.1f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES, metavar="K")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help="one step, in this process, of a project")
    options = parser.parse_args()
    if options.step:
        STEPS[options.step[0]](Paths(Path(options.step[1])))
        return
    print(f"| classes of 3 images | {' | '.join(STEPS)} |\n| ---: | ---: | ---: | ---: |")
    for k in options.classes:
        print(f"| {k:,} | {' | '.join(f'{found:.1f}' for found in measure(k))} |", flush=True)


if __name__ == "__main__":
    main()
