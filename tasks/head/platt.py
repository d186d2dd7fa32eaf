"""Scores as probabilities (Platt 1999). S rows, K classes; the model must not be trained on these rows.

    logits = factor * score + shift

are fitted to the classes by their log loss: for one class an image one factor and K shifts within a softmax, for
several a factor and a shift each, within sigmoids. The targets are Platt's too: not 0 and 1, but their
posterior mean with a uniform prior, so that scores without an error do not need an infinite factor.
"""

from __future__ import annotations

import numpy as np
import scipy  # loads its parts, up to half a second each, when they are first used

from ..common.data.manifest import Task
from ..common.heads.base import link
from .estimator import Array, Double

TOLERANCE = 1e-7
"""Of the gradient, for scores of unit variance."""


def fit_logits(score_SK: Double, target: Array, weight_S: Double, task: Task) -> tuple[Double, Double]:
    """(factor, shift), both (K,); no factor is below 0."""
    k, share_S = score_SK.shape[1], weight_S / weight_S.sum()
    wanted_SK = _wanted(target, share_S, k, task)
    mean_K = share_S @ score_SK
    spread_K = np.sqrt(share_S @ (score_SK - mean_K) ** 2)
    if task == "classification":
        spread_K = np.full(k, np.sqrt((spread_K**2).mean()))
    spread_K = np.where(spread_K > 0, spread_K, 1.0)
    factor_K, shift_K = _minimise((score_SK - mean_K) / spread_K, wanted_SK, share_S, task)
    factor_K = factor_K / spread_K
    return factor_K, shift_K - factor_K * mean_K


def _wanted(target: Array, share_S: Double, k: int, task: Task) -> Double:
    """(S, K) probabilities to be told."""
    rows = len(share_S)
    if task == "classification":
        count_S = rows * np.bincount(target, share_S, k)[target, None]
        wanted_SK = np.broadcast_to(1 / (count_S + k), (rows, k)).copy()
        wanted_SK[np.arange(rows), target] *= count_S[:, 0] + 1
        return wanted_SK
    with_K = rows * (share_S @ target)
    return np.where(target > 0, (with_K + 1) / (with_K + 2), 1 / (rows - with_K + 2))


def _minimise(x_SK: Double, wanted_SK: Double, share_S: Double, task: Task) -> tuple[Double, Double]:
    """L-BFGS with bounds (Byrd et al. 1995), from the classes' shares alone; the loss is convex."""
    k = x_SK.shape[1]
    factors = 1 if task == "classification" else k
    prior_K = share_S @ wanted_SK
    start_K = np.log(prior_K) - (0 if task == "classification" else np.log1p(-prior_K))

    def loss_and_gradient(theta: Double) -> tuple[float, Double]:
        logits_SK = theta[:factors] * x_SK + theta[factors:]
        wrong_SK = share_S[:, None] * (link(logits_SK, task) - wanted_SK)
        by_factor = (wrong_SK * x_SK).sum(axis=0).reshape(factors, -1).sum(axis=1)
        loss = float(share_S @ _loss(logits_SK, wanted_SK, task))
        return loss, np.concatenate([by_factor, wrong_SK.sum(axis=0)])

    found = scipy.optimize.minimize(
        loss_and_gradient,
        np.concatenate([np.zeros(factors), start_K]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * factors + [(None, None)] * k,
        options={"gtol": TOLERANCE, "ftol": 0.0, "maxiter": 1000},
    )
    return np.broadcast_to(found.x[:factors], (k,)), found.x[factors:]


def _loss(logits_SK: Double, wanted_SK: Double, task: Task) -> Double:
    """Of each row, (S,)."""
    told_S = (wanted_SK * logits_SK).sum(axis=1)
    if task == "classification":
        top_S = logits_SK.max(axis=1)
        return top_S + np.log(np.exp(logits_SK - top_S[:, None]).sum(axis=1)) - told_S
    return np.logaddexp(0, logits_SK).sum(axis=1) - told_S
