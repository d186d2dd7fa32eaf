"""What is needed of features that are read by slices. N rows, D features."""

from __future__ import annotations

import numpy as np

from ..common.basis import Matrix
from ..common.heads import blocks
from .estimator import Double, Rows


def mean_of(features_ND: Matrix, weight_N: Double) -> Double:
    """(D,)"""
    share_N = weight_N / weight_N.sum()
    return sum(share_N[rows] @ features_ND[rows].astype(np.float64) for rows in blocks(len(weight_N)))


def scale_of(features_ND: Matrix, weight_N: Double, mean_D: Double) -> Double:
    """(D,): the root of each feature's variance plus the mean of all variances; see `common.basis.Basis`."""
    share_N = weight_N / weight_N.sum()
    variance_D = sum(
        share_N[rows] @ (features_ND[rows].astype(np.float64) - mean_D) ** 2 for rows in blocks(len(weight_N))
    )
    return np.sqrt(variance_D + max(float(variance_D.mean()), 1e-12))


def spread(n: int, most: int) -> Rows:
    """Places of `most` of n rows, from the first to the last; all if there are no more."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
