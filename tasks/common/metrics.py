"""Figures of merit from probabilities; N images, K classes, B bootstrap samples, M bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def log_loss(p_NK: Floats, y_N: Ints, weight_N: Floats | None = None) -> float:
    """Mean negative log of the probability of the right class, in nats."""
    chosen = np.clip(p_NK[np.arange(len(y_N)), y_N], np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(chosen), weights=weight_N))


def accuracy(p_NK: Floats, y_N: Ints) -> float:
    return float((p_NK.argmax(axis=1) == y_N).mean())


def bootstrap_interval(
    correct_N: npt.NDArray[np.bool_], confidence: float, samples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of a mean of N zeros and ones (Efron 1979): drawing N of N with replacement is one binomial
    draw of the number of ones, so that B samples cost B numbers. Never narrower than the Wilson interval's reach at a
    mean of 0 or 1, where every resample would be the same.
    """
    n, mean = len(correct_N), float(correct_N.mean())
    if mean in (0.0, 1.0):
        return _wilson(n, mean, confidence)
    means_B = np.random.default_rng(seed).binomial(n, mean, size=samples) / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_B, [tail, 1 - tail])
    return float(low), float(high)


def _wilson(n: int, mean: float, confidence: float) -> tuple[float, float]:
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def confusion(predicted_N: Ints, y_N: Ints, k: int) -> Ints:
    """Counts of shape (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(y_N * k + predicted_N, minlength=k * k).reshape(k, k)


def per_class(matrix_KK: Ints, names: list[str]) -> dict[str, dict[str, float]]:
    """class -> precision, recall, f1, support; 0 where there is nothing to divide by."""
    hits, predicted, actual = np.diag(matrix_KK), matrix_KK.sum(axis=0), matrix_KK.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros(len(names)), where=predicted > 0)
    recall = np.divide(hits, actual, out=np.zeros(len(names)), where=actual > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros(len(names)), where=both > 0)
    return {
        name: {
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(actual[k]),
        }
        for k, name in enumerate(names)
    }


def reliability(p_NK: Floats, y_N: Ints, bins: int) -> list[dict[str, Any]]:
    """Bins of equal width over the confidence (the largest probability): images, mean confidence and accuracy."""
    confidence, correct = p_NK.max(axis=1), p_NK.argmax(axis=1) == y_N
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        {
            "bin": (m + 0.5) / bins,
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for m in range(bins)
        if (inside := place == m).any()
    ]


def expected_calibration_error(rows: list[dict[str, Any]]) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their images (Naeini et al. 2015)."""
    total = sum(row["images"] for row in rows)
    return float(sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / total)
