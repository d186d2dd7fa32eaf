"""Labels that are probably wrong, by the probabilities of models that have not seen them. N images, K classes.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"):
an image counts for class j if its probability of j is at least the mean probability of j among the images labelled j.
The number of images that count for another class than their label (the off-diagonal of the confident joint) estimates
how many labels are wrong; suspected are that many, those with the lowest probability of their label. On photographs of
hand signs with 5 % of the labels flipped, these included 86 % of the flipped; the off-diagonal entries themselves 75 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.manifest import BETWEEN
from ..common.data.task import Task
from ..common.scoring.temperature import calibrate

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FAR = 3.5
"""Robust standard deviations beyond which a number is an outlier (Iglewicz and Hoaglin 1993)."""

DRAWS = 5
"""How often labels are drawn for `by_chance`."""

ROUNDING = 1e-6
"""A probability this close to the mean does not count as lower."""

COLUMNS = ["image_id", "path", "split", "label", "suggested", "score", "p_label", "p_suggested"]


def wrong_classes(p_NK: Floats, y_N: npt.NDArray[np.int64]) -> Bools:
    """Which labels are suspected, (N,); p: out-of-fold probabilities, y: codes of the labels."""
    own_N = p_NK[np.arange(len(y_N)), y_N]
    count_K = np.bincount(y_N, minlength=p_NK.shape[1])
    mean_K = np.bincount(y_N, weights=own_N, minlength=p_NK.shape[1]) / np.maximum(count_K, 1)
    threshold_K = np.where(count_K > 0, mean_K - ROUNDING, np.inf)
    confident_NK = np.where(p_NK >= threshold_K, p_NK, -1.0)
    elsewhere = (confident_NK.max(axis=1) >= 0) & (confident_NK.argmax(axis=1) != y_N)
    lowest = np.argsort(own_N, kind="stable")[: np.count_nonzero(elsewhere)]
    suspected = np.zeros(len(y_N), np.bool_)
    suspected[lowest] = True
    return np.asarray(suspected & (p_NK.argmax(axis=1) != y_N))


def wrong_marks(p_NK: Floats, y_NK: Floats) -> Bools:
    """Which zeros and ones are suspected, (N, K): each class separately, as a problem of two classes."""
    return np.stack(
        [wrong_classes(np.stack([1 - p, p], axis=1), y.astype(np.int64)) for p, y in zip(p_NK.T, y_NK.T, strict=True)],
        axis=1,
    )


def deviations(predicted_N: Floats, y_N: Floats) -> Floats:
    """Absolute residuals, (N,), in robust standard deviations: 1.4826 times the median."""
    residual = y_N - predicted_N
    centred = residual - np.median(residual)
    scale = 1.4826 * float(np.median(np.abs(centred)))
    return np.abs(centred) / scale if scale > 0 else np.zeros(len(y_N))


def suspected(pack: FeatureSet, rows: Rows, output_NK: Floats) -> Bools:
    """What is suspected: (N, 1), the label, or with several classes per image (N, K), each mark.

    Marks are counted and not images: with fifty correct marks per image, one is suspected on almost every image by
    chance. output: of models that were not trained on the images (see `probe`); nan is not suspected.
    """
    known = judged(output_NK)
    found = np.zeros((len(rows), output_NK.shape[1] if pack.task == "multilabel" else 1), np.bool_)
    if known.any():
        found[known] = _suspected(output_NK[known], pack.targets(rows[known]), pack.task)
    return found


def judged(output_NK: Floats) -> Bools:
    """Which images have an output, (N,)."""
    return np.asarray(~np.isnan(output_NK).any(axis=1))


def _suspected(output_NK: Floats, target: npt.NDArray[Any], task: Task) -> Bools:
    if task == "regression":
        return np.asarray(deviations(output_NK[:, 0], target)[:, None] > FAR)
    if task == "multilabel":
        return wrong_marks(output_NK, target)
    return wrong_classes(output_NK, target)[:, None]


def by_chance(pack: FeatureSet, rows: Rows, output_NK: Floats, seed: int) -> float:
    """How many labels (with several classes per image, marks) would be suspected if all were correct: labels are drawn
    from the probabilities of the models, calibrated on the given labels. The harder the images, the more.

    Wrong labels make the models seem less confident, and so raise this number: for hand signs with 5 % flipped, it is
    5.6 to 8.5 %, and 4.3 to 5.8 % are suspected. It is for information, and not usable as a limit.
    """
    known = judged(output_NK)
    if pack.task == "regression" or not known.any():
        return 0.0
    p_NK, target = output_NK[known], pack.targets(rows[known])
    truly_NK = calibrate(p_NK, target, np.ones(len(p_NK)), pack.task, scale=True).apply(p_NK)
    rng = np.random.default_rng([seed, 4])
    drawn = (_suspected(p_NK, _draw(truly_NK, pack.task, rng), pack.task).sum() for _ in range(DRAWS))
    return float(sum(drawn)) / DRAWS


def _draw(p_NK: Floats, task: Task, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Labels drawn with these probabilities."""
    if task == "multilabel":
        return (rng.random(p_NK.shape) < p_NK).astype(np.float64)
    below_NK = p_NK.cumsum(axis=1) < rng.random((len(p_NK), 1))
    return np.minimum(below_NK.sum(axis=1), p_NK.shape[1] - 1)


def label_issues(pack: FeatureSet, rows: Rows, output_NK: Floats) -> pd.DataFrame:
    """One row per image with a suspected label, the most suspicious first: `COLUMNS`.

    `score` is the probability of the label; with several classes per image, that of the least probable mark; for
    regression, minus the robust standard deviations from the prediction. So lower is more suspicious.
    """
    doubted = suspected(pack, rows, output_NK)
    places = np.flatnonzero(doubted.any(axis=1))
    if pack.task == "multilabel":
        details = _marks(pack, rows[places], output_NK[places], doubted[places])
    else:
        details = {"classification": _classes, "regression": _numbers}[pack.task](pack, rows, output_NK, places)
    table = pack.index.iloc[rows[places]][["image_id", "path", "split", "label"]].reset_index(drop=True)
    table = table.assign(label=table["label"].astype(str), **details)
    return table.sort_values(["score", "path"], ignore_index=True)[COLUMNS]


def _classes(pack: FeatureSet, rows: Rows, p_NK: Floats, places: npt.NDArray[np.int64]) -> dict[str, Any]:
    p = p_NK[places]
    own = p[np.arange(len(places)), pack.targets(rows[places])]
    names = np.array(pack.classes, dtype=object)
    return {"suggested": names[p.argmax(axis=1)], "score": own, "p_label": own, "p_suggested": p.max(axis=1)}


def _marks(pack: FeatureSet, rows: Rows, p_NK: Floats, doubted_NK: Bools) -> dict[str, Any]:
    y_NK = pack.targets(rows)
    own_NK = np.where(y_NK > 0, p_NK, 1 - p_NK)
    corrected = np.where(doubted_NK, 1 - y_NK, y_NK) > 0
    named = [BETWEEN.join(name for name, has in zip(pack.classes, marks, strict=True) if has) for marks in corrected]
    worst = np.where(doubted_NK, own_NK, np.inf).min(axis=1, initial=np.inf)
    return {"suggested": named, "score": worst, "p_label": worst, "p_suggested": 1 - worst}


def _numbers(pack: FeatureSet, rows: Rows, output_N1: Floats, places: npt.NDArray[np.int64]) -> dict[str, Any]:
    known = ~np.isnan(output_N1[:, 0])
    far = np.zeros(len(rows))
    far[known] = deviations(output_N1[known, 0], pack.targets(rows[known]))
    return {
        "suggested": [f"{value:.4g}" for value in output_N1[places, 0]],
        "score": -far[places],
        "p_label": np.nan,
        "p_suggested": np.nan,
    }
