"""A temperature and a bias per class for a head that was trained with class weights. N images, K classes.

A head trained with weights w_k learns the shares of the weighted images, in which class k is w_k times as frequent. The
true probabilities follow from its own by dividing by w_k (Saerens et al. 2002), which is a bias of -log w_k in the
logits z = log p. A head learns the weighted shares only nearly, so the bias is fitted, with that one as the prior:

    F(a, b) = sum_i n_i (log sum_k exp(a z_ik + b_k) - a z_iy - b_y) + (a - 1 - log a)
              + PRIOR sum_k (b_k + log w_k)^2 / 8

with a = 1 / T and image weights n of mean 1. This is vector scaling (Guo et al. 2017) with one factor. The Gaussian
prior has the weight of `PRIOR` images, each with a curvature in b_k of p (1 - p), at most 1 / 4; the prior of a is that
of `temperature.py`. F is convex. Constants of w cancel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, up to half a second each, when they are first used

from ..core.blocks import blocks
from ..heads.base import softmax
from ..heads.calibration import log_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BOUNDS = (0.05, 20.0)
"""Of a."""

PRIOR = 10.0
"""With 5 % of a rare class and 200 held-out images, the weight of one image gives the rare class a mean probability of
5.8 %, ten 5.5 % (bench/simulations/calibration.py)."""

TOLERANCE = 1e-7
"""Of the gradient of F / N."""


def fit_class_bias(
    p_NK: Floats, y_N: Ints, weight_N: Floats, class_weight_K: Floats, zero: float
) -> tuple[float, Floats]:
    """(T, b of shape (K,)).

    Args:
        p_NK: probabilities by the head, of images that it was not trained on.
        weight_N: of the images alone, without class weights.
        class_weight_K: that the head was trained with.
        zero: the value of smaller probabilities.
    """
    n, k = p_NK.shape
    share_N = weight_N / weight_N.sum()
    prior_K = -np.log(class_weight_K)
    prior_K = prior_K - prior_K.mean()

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        a, b_K = theta[0], theta[1:]
        parts = [_part(a, b_K, p_NK[rows], y_N[rows], share_N[rows], zero) for rows in blocks(n)]
        off_K = b_K - prior_K
        loss = sum(part[0] for part in parts) + (a - 1 - np.log(a) + PRIOR * off_K @ off_K / 8) / n
        slope = np.sum([part[1] for part in parts], axis=0)
        return loss, slope + np.concatenate([[1 - 1 / a], PRIOR * off_K / 4]) / n

    found = scipy.optimize.minimize(
        loss_and_gradient,
        np.concatenate([[1.0], prior_K]),
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS] + [(None, None)] * k,
        options={"gtol": TOLERANCE, "ftol": 0.0, "maxiter": 1000},
    )
    return float(1 / found.x[0]), found.x[1:]


def _part(a: float, b_K: Floats, p_BK: Floats, y_B: Ints, share_B: Floats, zero: float) -> tuple[float, Floats]:
    """The part of F / N of some images, and its gradient in (a, b)."""
    z_BK = log_of(p_BK, zero)
    own_B = np.arange(len(y_B))
    lead_BK = z_BK - z_BK[own_B, y_B][:, None]
    logits_BK = a * lead_BK + b_K - b_K[y_B][:, None]
    top_B = logits_BK.max(axis=1)
    loss = share_B @ (top_B + np.log(np.exp(logits_BK - top_B[:, None]).sum(axis=1)))
    found_BK = softmax(logits_BK)
    slope_a = share_B @ (found_BK * lead_BK).sum(axis=1)
    slope_K = share_B @ found_BK - np.bincount(y_B, weights=share_B, minlength=len(b_K))
    return float(loss), np.concatenate([[slope_a], slope_K])
