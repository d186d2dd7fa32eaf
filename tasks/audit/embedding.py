"""Features in two dimensions, so that what is near there is near here (t-SNE). N images, R axes.

The method is van der Maaten and Hinton's (2008), exact, with what has been learned since: it starts from the two
largest principal axes, which keeps the classes' large-scale order and needs no random numbers (Kobak and Berens 2019),
and its step grows with N (Belkina et al. 2019). 1,000 images take two seconds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from ..common.core.progress import progress
from ..common.data.feature_set import Floats
from ..common.solvers.blas import one_thread_a_product

PERPLEXITY = 30.0
"""How many neighbours an image should be near, about."""

STEPS, EARLY = 400, 100
"""Of the descent; in the early ones neighbours attract each other more."""

EXAGGERATION = 12.0
"""How much more."""


def embed(rows_NR: Floats) -> Floats:
    """Places of shape (N, 2) for rows of length 1; the same for the same rows."""
    n = len(rows_NR)
    with one_thread_a_product():  # a sum in another order would end in another map
        start_N2 = _principal(rows_NR)
        if n < 5:  # nothing to arrange
            return start_N2
        squared_NN = np.maximum(2 - 2 * (rows_NR @ rows_NR.T).astype(np.float64), 0.0)
        return _descend(_affinities(squared_NN, min(PERPLEXITY, (n - 1) / 3)), 1e-4 * start_N2)


def _principal(rows_NR: Floats) -> Floats:
    """Along the two largest principal axes, (N, 2), with a standard deviation of 1 along the first."""
    centred = rows_NR - rows_NR.mean(axis=0)
    n = len(rows_NR)
    last = [max(n - 2, 0), n - 1]
    squared_2, turned_N2 = eigh((centred @ centred.T).astype(np.float64), subset_by_index=last)
    places_N2 = np.zeros((n, 2))
    places_N2[:, : len(squared_2)] = (turned_N2 * np.sqrt(np.maximum(squared_2, 0.0)))[:, ::-1]
    return (places_N2 / max(float(places_N2[:, 0].std()), 1e-12)).astype(np.float32)


def _affinities(squared_NN: npt.NDArray[np.float64], perplexity: float) -> Floats:
    """P of (N, N), sum 1: Gaussians around each row, so wide that their entropy is log(perplexity)."""
    n = len(squared_NN)
    np.fill_diagonal(squared_NN, np.inf)
    squared_NN = squared_NN - squared_NN.min(axis=1, keepdims=True)  # the same Gaussians, without underflow
    np.fill_diagonal(squared_NN, 0.0)
    low_N, high_N = np.zeros(n), np.full(n, np.inf)
    beta_N = np.full(n, 1 / max(float(squared_NN.mean()), 1e-12))
    for _ in range(50):
        p_NN = np.exp(-squared_NN * beta_N[:, None])
        np.fill_diagonal(p_NN, 0.0)
        total_N = p_NN.sum(axis=1)
        entropy_N = np.log(total_N) + beta_N * (squared_NN * p_NN).sum(axis=1) / total_N
        wide = entropy_N > np.log(perplexity)
        low_N, high_N = np.where(wide, beta_N, low_N), np.where(wide, high_N, beta_N)
        beta_N = np.where(np.isinf(high_N), 2 * beta_N, (low_N + high_N) / 2)
    p_NN /= total_N[:, None]
    return ((p_NN + p_NN.T) / (2 * n)).astype(np.float32)


def _descend(p_NN: Floats, places_N2: Floats) -> Floats:
    """Gradient descent with momentum and a gain for each coordinate, on the divergence of P and

    Q = q / sum q,  q_ij = 1 / (1 + |y_i - y_j|^2),  gradient_i = 4 sum_j (P_ij - Q_ij) q_ij (y_i - y_j)
    """
    n = len(p_NN)
    move, gain = np.zeros_like(places_N2), np.ones_like(places_N2)
    q_NN, pull_NN = np.empty_like(p_NN), np.empty_like(p_NN)
    step = max(n / EXAGGERATION, 50.0)
    with progress("audit: the map", STEPS, "steps") as bar:
        for number in range(STEPS):
            early = number < EARLY
            squared_N = (places_N2**2).sum(axis=1)
            np.matmul(places_N2, places_N2.T, out=q_NN)
            q_NN *= -2
            q_NN += 1 + squared_N[:, None] + squared_N
            np.maximum(q_NN, 1.0, out=q_NN)  # rounding may have made a distance less than nothing
            np.reciprocal(q_NN, out=q_NN)
            np.fill_diagonal(q_NN, 0.0)
            np.multiply(p_NN, EXAGGERATION if early else 1.0, out=pull_NN)
            pull_NN -= q_NN / q_NN.sum()
            pull_NN *= q_NN
            gradient = 4 * (pull_NN.sum(axis=1)[:, None] * places_N2 - pull_NN @ places_N2)
            gain = np.maximum(np.where(np.sign(gradient) == np.sign(move), 0.8 * gain, gain + 0.2), 0.01)
            move = (0.5 if early else 0.8) * move - step * gain * gradient
            places_N2 = places_N2 + move - (places_N2 + move).mean(axis=0)
            bar.add()
    return places_N2.astype(np.float32)
