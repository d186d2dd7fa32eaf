"""Small models that are trained many times: logistic and ridge regression in the leading principal axes.

N images to learn from, M images asked about, A axes, K classes, B models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.linear_model import RidgeCV

from ..common.data.task import Task
from ..common.heads.base import link
from ..common.solvers.blas import one_thread_a_product
from ..common.solvers.principal_axes import rotate

Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

AXES = 128
"""Leading axes that are kept; with 50 to 200 labels, as accurate as all 1,280 on signs, insects and clothes."""

L2 = 0.2
"""Of the mean loss. To choose images by, with 50 to 300 labels, 0.1 to 0.3 were alike and 0.03 worse."""

RIDGES = np.geomspace(1, 1e5, 11)
"""Strengths of ridge regression; the one with the lowest error on images left out in turn is taken."""

MODELS = 8
"""Number of models that may disagree about a number."""

Predict = Callable[[Single], Double]


def principal(features_ND: npt.NDArray[Any]) -> Single:
    """(N, A), the leading axes of the standardised features."""
    with one_thread_a_product():
        _, rows_NR = rotate(features_ND, np.ones(len(features_ND)), None)
    return np.ascontiguousarray(rows_NR[:, ::-1][:, :AXES])


def learn(x_NA: Single, target: npt.NDArray[Any], task: Task, k: int, l2: float = L2) -> Predict:
    """A model of (N,) class codes, (N, K) zeros and ones, or (N,) numbers, as `FeatureSet.targets` has them.

    Its output is (M, K), probabilities, or (M, 1), numbers. A class without images gets the probability 0.
    """
    if task == "regression":
        ridge = RidgeCV(RIDGES).fit(x_NA, target)
        return lambda x_MA: np.asarray(ridge.predict(x_MA), np.float64)[:, None]
    if task == "multilabel":
        return _logistic(x_NA, target.astype(np.float32), task, l2)
    present, code_N = np.unique(target, return_inverse=True)
    few = _logistic(x_NA, np.eye(len(present), dtype=np.float32)[code_N], task, l2)

    def ask(x_MA: Single) -> Double:
        output_MK = np.zeros((len(x_MA), k))
        output_MK[:, present] = few(x_MA)
        return output_MK

    return ask


def _logistic(x_NA: Single, y_NK: Single, task: Task, l2: float) -> Predict:
    """L-BFGS from zero; the bias is not penalised."""
    n, axes = x_NA.shape
    k = y_NK.shape[1]

    def loss(theta: Double) -> tuple[float, Double]:
        weight_AK = theta.reshape(axes + 1, k).astype(np.float32)
        logits_NK = x_NA @ weight_AK[:-1] + weight_AK[-1]
        p_NK = link(logits_NK, task)
        log = y_NK * np.log(np.maximum(p_NK, 1e-30))
        if task == "multilabel":
            log += (1 - y_NK) * np.log(np.maximum(1 - p_NK, 1e-30))
        error_NK = ((p_NK - y_NK) / n).astype(np.float32)
        slope_AK = np.concatenate([x_NA.T @ error_NK + l2 * weight_AK[:-1], error_NK.sum(axis=0)[None]])
        penalty = 0.5 * l2 * float((weight_AK[:-1].astype(np.float64) ** 2).sum())
        return float(-log.sum() / n) + penalty, slope_AK.ravel().astype(np.float64)

    found = minimize(
        loss, np.zeros((axes + 1) * k), jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-6}
    )
    theta_AK = found.x.reshape(axes + 1, k)
    return lambda x_MA: link(x_MA @ theta_AK[:-1] + theta_AK[-1], task)


def disagreement(x_NA: Single, target_N: Double, x_MA: Single, seed: int) -> Double:
    """(M,), the standard deviation of numbers predicted by models that each learned from another resample of the
    images (query by committee; Seung et al. 1992)."""
    rng = np.random.default_rng(seed)
    found_BM = []
    for _ in range(MODELS):
        drawn = rng.integers(len(x_NA), size=len(x_NA))
        found_BM.append(learn(x_NA[drawn], target_N[drawn], "regression", 1)(x_MA)[:, 0])
    return np.std(found_BM, axis=0)
