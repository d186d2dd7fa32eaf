"""Metrics for several classes per image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ranking import average_precisions, mean_average_precision
from .resampling import Floats


def several_log_loss(p_NK: Floats, y_NK: Floats, weight_N: Floats | None = None) -> float:
    """Mean over images and classes of the negative log of the probability of the truth, in nats."""
    right_NK = np.clip(np.where(y_NK > 0, p_NK, 1 - p_NK), np.finfo(np.float64).tiny, 1.0)
    return float(-np.average(np.log(right_NK).mean(axis=1), weights=weight_N))


def multilabel_scores(p_NK: Floats, y_NK: Floats) -> dict[str, float]:
    """Mean average precision; at a probability of 0.5 and above: F1 as the mean over the classes that any image has
    (`f1_macro`) and over all pairs of image and class (`f1_micro`), the share of images with all classes correct, and
    the share of wrong pairs."""
    found_NK, has_NK = p_NK >= 0.5, y_NK > 0
    hits, found, actual = (x.sum(axis=0).astype(np.float64) for x in (found_NK & has_NK, found_NK, has_NK))
    return {
        "mean_average_precision": mean_average_precision(p_NK, y_NK),
        "f1_macro": float(np.mean(_f1(hits, found, actual)[actual > 0])) if actual.any() else 0.0,
        "f1_micro": float(_f1(hits.sum(), found.sum(), actual.sum())),
        "subset_accuracy": float((found_NK == has_NK).all(axis=1).mean()),
        "hamming_loss": float((found_NK != has_NK).mean()),
        "log_loss": several_log_loss(p_NK, y_NK),
    }


def _f1(hits: Any, found: Any, actual: Any) -> Any:
    """2 hits / (found + actual); 0 if undefined."""
    return np.where(found + actual > 0, 2 * hits / np.maximum(found + actual, 1), 0.0)


def per_label(p_NK: Floats, y_NK: Floats, names: list[str]) -> dict[str, dict[str, float | None]]:
    """class -> average_precision, precision, recall, f1 and support; null or 0 if undefined."""
    found_NK, has_NK = p_NK >= 0.5, y_NK > 0
    hits, found, actual = (x.sum(axis=0) for x in (found_NK & has_NK, found_NK, has_NK))
    average = average_precisions(p_NK, y_NK)
    return {
        name: {
            "average_precision": float(average[k]) if actual[k] else None,
            "precision": float(hits[k] / max(found[k], 1)),
            "recall": float(hits[k] / max(actual[k], 1)),
            "f1": float(_f1(hits[k], found[k], actual[k])),
            "support": int(actual[k]),
        }
        for k, name in enumerate(names)
    }
