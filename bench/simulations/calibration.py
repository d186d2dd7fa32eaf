"""Whether calibrated probabilities have the true shares of the classes, where the head was trained with class weights.

Two classes, one of them rare, with D normal features whose means differ. The head is trained with `class_weight:
balanced` on N images and calibrated on a third as many; a large sample of further images gives the true rates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.scoring.main_metric import metric_of
from graft.tasks.common.scoring.temperature import calibrate
from graft.tasks.head.class_weights import weigh, weight_by_class
from graft.tasks.head.logistic import LogisticRegression

from .row import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

D, APART = 20, 2.0
"""The number of features, and the distance of the classes' means in standard deviations."""

CLASSES = ["frequent", "rare"]
POPULATION = 20_000


def simulate(runs: int, share: float, images: int, seed: int) -> dict[str, float]:
    """Means over the runs.

    mean_p: the mean probability of the rare class, whose share is `share`; mean_p_head by the head itself, and
    mean_p_temperature by a temperature alone
    balanced_accuracy: of the decisions; balanced_accuracy_head of the head's own, balanced_accuracy_plain of the most
    probable class
    """
    rng = np.random.default_rng(seed)
    found = [_run(rng, share, images) for _ in range(runs)]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _run(rng: np.random.Generator, share: float, images: int) -> dict[str, float]:
    (x_ND, y_N), (held_MD, held_M), (new_PD, new_P) = (_draw(rng, share, n) for n in (images, images // 3, POPULATION))
    even_N, weight_K = np.ones(images), weight_by_class(np.ones(images), y_N, CLASSES, "balanced")
    head = LogisticRegression(CLASSES, l2=0.01).fit(x_ND, y_N, weigh(even_N, y_N, CLASSES, "balanced")).head_
    held = head.output(held_MD), held_M, np.ones(len(held_M))
    calibrated = calibrate(*held, "classification", scale=True, class_weight_K=weight_K)
    temperature = calibrate(*held, "classification", scale=True)
    before = head.output(new_PD)
    after = calibrated.apply(before)
    return {
        "mean_p": float(after[:, 1].mean()),
        "mean_p_head": float(before[:, 1].mean()),
        "mean_p_temperature": float(temperature.apply(before)[:, 1].mean()),
        "balanced_accuracy": _balanced(calibrated, after, new_P),
        "balanced_accuracy_head": _balanced(Calibration(), before, new_P),
        "balanced_accuracy_plain": _balanced(Calibration(), after, new_P),
    }


def _balanced(calibration: Calibration, p_NK: Floats, y_N: Ints) -> float:
    return metric_of(calibration.judged(p_NK, "balanced_accuracy"), y_N, "balanced_accuracy", "classification")


def _draw(rng: np.random.Generator, share: float, n: int) -> tuple[npt.NDArray[np.float32], Ints]:
    """Features (n, D) and classes; at least two images are of the rare class, so that both splits have it."""
    y_N = (rng.uniform(size=n) < share).astype(np.int64)
    y_N[:2] = 1
    x_ND = rng.normal(size=(n, D))
    x_ND[:, 0] += APART * y_N
    return x_ND.astype(np.float32), y_N


def long_run(runs: int) -> list[Row]:
    """The mean probability of a rare class, and the balanced accuracy of the decisions against the head's own."""
    few, rows = max(1, runs // 20), []
    for images in (600, 2000):
        found = simulate(few, 0.05, images, seed=0)
        named = f"a rare class of 5 %, `class_weight: balanced`, {images:,} images"
        head = found["balanced_accuracy_head"]
        rows += [
            Row(f"mean probability of {named}", 0.05, found["mean_p"], (0.03, 0.07), few),
            Row(f"balanced accuracy of the labels, {named}", head, found["balanced_accuracy"], (head - 1e-6, 1.0), few),
        ]
    return rows
