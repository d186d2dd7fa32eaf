"""Metrics for regression."""

from __future__ import annotations

import numpy as np

from .resampling import Floats


def r2(predicted_N: Floats, y_N: Floats) -> float:
    """1 minus the unexplained share of the variance; without variance 1 if all predictions are exact, else 0."""
    left, whole = np.mean((predicted_N - y_N) ** 2, keepdims=True), np.var(y_N, keepdims=True)
    return float(r2_of_resamples(left, whole, y_N)[0])


def r2_of_resamples(squared_B: Floats, variance_B: Floats, y_N: Floats) -> Floats:
    """From mean squared errors and variances of resamples of y. A variance that is only rounding counts as 0."""
    varies_B = variance_B > max(1e-28 * np.square(y_N).max(), 1e-12 * np.var(y_N))
    return np.where(varies_B, 1 - squared_B / np.where(varies_B, variance_B, 1.0), squared_B == 0)


def regression_scores(predicted_N: Floats, y_N: Floats) -> dict[str, float | None]:
    """R², mean and median absolute error, root mean squared error, Spearman's rank correlation (None if undefined)."""
    error_N = predicted_N - y_N
    return {
        "r2": r2(predicted_N, y_N),
        "mae": float(np.abs(error_N).mean()),
        "rmse": float(np.sqrt((error_N**2).mean())),
        "median_absolute_error": float(np.median(np.abs(error_N))),
        "spearman": spearman(predicted_N, y_N),
    }


def spearman(a_N: Floats, b_N: Floats) -> float | None:
    """Rank correlation; equal numbers share their mean rank. None if all numbers of one side are equal."""
    from scipy.stats import rankdata  # takes half a second to import

    a, b = (ranks - ranks.mean() for ranks in (rankdata(a_N), rankdata(b_N)))
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm else None
