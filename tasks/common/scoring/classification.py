"""Metrics for one class per image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .resampling import Floats, Ints


def log_loss(p_NK: Floats, y_N: Ints, weight_N: Floats | None = None) -> float:
    """Mean negative log of the probability of the right class, in nats."""
    chosen = np.clip(p_NK[np.arange(len(y_N)), y_N], np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(chosen), weights=weight_N))


def accuracy(p_NK: Floats, y_N: Ints) -> float:
    return float((p_NK.argmax(axis=1) == y_N).mean())


def confusion(predicted_N: Ints, y_N: Ints, k: int) -> Ints:
    """Counts of shape (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(y_N * k + predicted_N, minlength=k * k).reshape(k, k)


def per_class(matrix_KK: Ints, names: list[str]) -> dict[str, dict[str, float]]:
    """class -> precision, recall, f1, support; 0 if undefined."""
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
    return reliability_of(p_NK.max(axis=1), p_NK.argmax(axis=1) == y_N, bins)


def reliability_of(confidence_N: Floats, correct_N: npt.NDArray[np.bool_], bins: int) -> list[dict[str, Any]]:
    """The same for predictions that need not be the most probable ones."""
    place = np.minimum((confidence_N * bins).astype(np.int64), bins - 1)
    return [
        {
            "bin": (m + 0.5) / bins,
            "images": int(inside.sum()),
            "confidence": float(confidence_N[inside].mean()),
            "accuracy": float(correct_N[inside].mean()),
        }
        for m in range(bins)
        if (inside := place == m).any()
    ]


def expected_calibration_error(rows: list[dict[str, Any]]) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their images (Naeini et al. 2015)."""
    total = sum(row["images"] for row in rows)
    return float(sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / total)


def classwise_calibration_error(p_NK: Floats, has: npt.NDArray[Any], bins: int) -> float:
    """The mean over the classes of the gap between the probability of a class and its share, over bins of equal width
    weighted by their images (Kull et al. 2019). Unlike the error of the confidence, it sees that a rare class is
    predicted with too high a probability.

    Args:
        has: int64 (N,) the class of each image, or (N, K) zeros and ones.
    """
    gaps: list[float] = []
    for k, p_N in enumerate(p_NK.T):
        has_N = (has == k) if has.ndim == 1 else has[:, k] > 0
        place_N = np.minimum((p_N * bins).astype(np.int64), bins - 1)
        gaps.append(float(np.abs(np.bincount(place_N, weights=p_N - has_N, minlength=bins)).sum()) / len(p_N))
    return float(np.mean(gaps))
