"""Where a training starts: the head of the stage `head`, trained on the images of this training alone.

The head that the stage saved has learned all training images. A training that holds some of them out, to choose its
epoch by, must not start from it: it would know them. N rows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.paths import Paths
from ..common.data.feature_set import FeatureSet, Learnable, Rows
from ..common.heads.linear import LinearHead
from ..common.solvers import logistic

Floats = npt.NDArray[np.float64]

STRENGTH = 1e-2
"""Of the penalty, where the head is of a kind whose strengths mean something else."""


def start_head(pack: FeatureSet, rows: Rows, facts: dict[str, Any], paths: Paths) -> LinearHead:
    """A linear head with the settings of the stage's one, trained on `rows`. A ridge classifier gets a logistic
    regression in its place: its probabilities come from held-out scores.

    Args:
        pack: with the weights of images and classes.
        facts: `selected.json`.
    """
    features, places = pack.with_views(rows)
    weight_N = pack.weights(places) / np.bincount(places, minlength=1)[places]
    target = pack.targets(places)
    if pack.task == "regression":
        return _ridge(features, target, weight_N, float(facts["l2"]))
    step = logistic.fit(
        features,
        target,
        weight_N,
        len(pack.classes),
        float(facts["l2"]) if facts["estimator"] == "logistic" else STRENGTH,
        link="softmax" if pack.task == "classification" else "sigmoid",
        scratch=paths.tmp,
    )
    return LinearHead(step.weight_KD, step.bias_K, pack.classes, pack.task)


def _ridge(features: Learnable, y_N: Floats, weight_N: Floats, l2: float) -> LinearHead:
    """The minimum of the weighted mean of |y - W x - b|^2 / 2, plus l2 / 2 * |W|^2, over standardised features."""
    x_ND = np.asarray(features, np.float64)
    share_N = weight_N / weight_N.sum()
    mean_D, mean = share_N @ x_ND, float(share_N @ y_N)
    x_ND -= mean_D
    deviation_D = np.sqrt(share_N @ x_ND**2)
    scale_D = np.where(deviation_D > 0, deviation_D, 1.0)
    x_ND *= np.sqrt(share_N)[:, None] / scale_D
    y_N = np.sqrt(share_N) * (y_N - mean)
    if len(x_ND) < x_ND.shape[1]:  # the same by the smaller of the two systems
        w_D = x_ND.T @ np.linalg.solve(x_ND @ x_ND.T + l2 * np.eye(len(x_ND)), y_N)
    else:
        w_D = np.linalg.solve(x_ND.T @ x_ND + l2 * np.eye(x_ND.shape[1]), x_ND.T @ y_N)
    w_D /= scale_D
    bias = np.array([mean - mean_D @ w_D], np.float32)
    return LinearHead(w_D[None].astype(np.float32), bias, [], "regression")
