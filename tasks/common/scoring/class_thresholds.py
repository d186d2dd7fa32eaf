"""A threshold per class where images have several: from which probability on a class is predicted. N images, K classes.

The threshold of the largest F1 of a class is half of that F1 (Lipton et al. 2014), so it is below 0.5, and lower for
classes that are hard to tell.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HALF = 0.5
"""The threshold of a class with fewer than `FEW` images."""

FEW = 5

FOLDS = 5
"""Into which the units are divided, so that no image is judged by a threshold that it helped to choose."""

EDGE = 1e-6
"""No threshold is closer to 0 or 1."""


def f1_thresholds(p_NK: Floats, y_NK: Floats) -> Floats:
    """(K,): the threshold with the largest F1 of each class on these images; of equal ones the highest."""
    return np.array([_best(p_N, y_N > 0) for p_N, y_N in zip(p_NK.T, y_NK.T, strict=True)])


def _best(p_N: Floats, has_N: npt.NDArray[np.bool_]) -> float:
    if np.count_nonzero(has_N) < FEW:
        return HALF
    order = np.argsort(-p_N, kind="stable")
    p, hits = p_N[order], np.cumsum(has_N[order])
    ends = np.flatnonzero(np.append(p[1:] < p[:-1], True))  # images of equal probability are predicted together
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    last = ends[int(f1.argmax())]
    below = p[last + 1] if last + 1 < len(p) else 0.0
    return float(np.clip((p[last] + below) / 2, EDGE, 1 - EDGE))


def cross_fitted(p_NK: Floats, y_NK: Floats, unit_N: Ints, seed: int = 0) -> npt.NDArray[np.bool_]:
    """(N, K), whether each class is predicted by thresholds that were chosen on the images of other units: an honest
    estimate of what `f1_thresholds` does on new images."""
    units = np.unique(unit_N, return_inverse=True)[1]
    fold_U = np.random.default_rng(seed).permutation(units.max(initial=-1) + 1) % FOLDS
    fold_N = fold_U[units]
    predicted_NK = np.zeros(p_NK.shape, np.bool_)
    for fold in range(FOLDS):
        held_N = fold_N == fold
        predicted_NK[held_N] = p_NK[held_N] >= f1_thresholds(p_NK[~held_N], y_NK[~held_N])
    return predicted_NK
