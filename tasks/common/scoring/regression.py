"""Metrics of a number an image."""

from __future__ import annotations

import numpy as np

from .bootstrap import Floats, interval_ends, resamples


def r2(predicted_N: Floats, y_N: Floats) -> float:
    """1 less the share of the variance that is left unexplained; of numbers without variance 1 if all are right, else
    0."""
    left, whole = np.mean((predicted_N - y_N) ** 2, keepdims=True), np.var(y_N, keepdims=True)
    return float(r2_of_resamples(left, whole, y_N)[0])


def r2_of_resamples(squared_B: Floats, variance_B: Floats, y_N: Floats) -> Floats:
    """From mean squared errors and variances of samples of y; a variance that is but rounding counts as none: of the
    mean of all, or of the difference by which a sample's was found."""
    varies_B = variance_B > max(1e-28 * np.square(y_N).max(), 1e-12 * np.var(y_N))
    return np.where(varies_B, 1 - squared_B / np.where(varies_B, variance_B, 1.0), squared_B == 0)


def regression_scores(predicted_N: Floats, y_N: Floats) -> dict[str, float | None]:
    """R2, mean and median absolute error, the root of the mean squared error, Spearman's rank correlation (null if all
    are equal)."""
    error_N = predicted_N - y_N
    return {
        "r2": r2(predicted_N, y_N),
        "mae": float(np.abs(error_N).mean()),
        "rmse": float(np.sqrt((error_N**2).mean())),
        "median_absolute_error": float(np.median(np.abs(error_N))),
        "spearman": spearman(predicted_N, y_N),
    }


def spearman(a_N: Floats, b_N: Floats) -> float | None:
    """The correlation of the ranks; equal numbers share the mean of theirs."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(a_N), _ranks(b_N)))
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm else None


def _ranks(values_N: Floats) -> Floats:
    _, place, count = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def regression_intervals(
    predicted_N: Floats, y_N: Floats, confidence: float, samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `r2`, `mae` and `rmse` over resamples of the images."""
    found: dict[str, list[Floats]] = {"r2": [], "mae": [], "rmse": []}
    error_N, centred_N = predicted_N - y_N, y_N - y_N.mean()
    for drawn_BN in resamples(len(y_N), samples, seed):
        squared_B = (error_N**2)[drawn_BN].mean(axis=1)
        variance_B = (centred_N**2)[drawn_BN].mean(axis=1) - centred_N[drawn_BN].mean(axis=1) ** 2
        found["r2"].append(r2_of_resamples(squared_B, variance_B, y_N))
        found["mae"].append(np.abs(error_N)[drawn_BN].mean(axis=1))
        found["rmse"].append(np.sqrt(squared_B))
    return {name: interval_ends(np.concatenate(values), confidence) for name, values in found.items()}
