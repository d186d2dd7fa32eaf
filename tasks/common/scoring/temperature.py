"""Fitting of a calibration on images that the head was not trained on (validation).

The temperature T minimises, with a = 1 / T and logits z = log p,

    F(a) = sum_i w_i (log sum_k exp(a z_ik) - a z_iy) + (a - 1 - log a)

that is the log loss (weights w have a mean of 1) and a Gamma prior on a, with a mode of 1 and the weight of one image.
Without it a validation set without errors would give T = 0. F is convex; its derivative, the expected logit less the
right class's, is exact.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from ..core.errors import GraftError, ParamsError
from ..data.manifest import Task
from ..heads.base import softmax
from ..heads.calibration import TINY, Calibration, log_of, two_way
from . import classification
from .selective import promise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""

SHARPEST, FLATTEST = 20.0, 0.05
"""The bounds of 1 / T."""


def calibrate(
    p_NK: Floats,
    target: npt.NDArray[Any],
    weight_N: Floats,
    task: Task,
    *,
    scale: bool,
    max_error: float | None = None,
    confidence: float = 0.9,
) -> Calibration:
    """A temperature if `scale`, and the threshold that guarantees `max_error` if one is given.

    The threshold is None if it cannot be guaranteed: see `check_promise`. Regression has no probabilities, and gets the
    default.

    Args:
        p_NK: probabilities by a head, of images that it was not trained on.
        target: as `FeatureSet.targets` gives it.
    """
    if task == "regression" or not (scale or max_error):
        return Calibration()
    each = task == "multilabel"
    p, y, weight = _questions(p_NK, target, weight_N) if each else (p_NK, target, weight_N)
    found = Calibration(each=each, scaled=scale)
    if scale:
        zero = _zero(p)
        found = replace(found, zero=zero, temperature=fit_temperature(p, y, weight, zero))
    after_NK = found.apply(p_NK)
    after = two_way(after_NK) if each else after_NK
    metrics: dict[str, Any] = {
        "images": len(p_NK),
        "log_loss_before": classification.log_loss(p, y, weight),
        "log_loss": classification.log_loss(after, y, weight),
        "calibration_error_before": calibration_error(p, y),
        "calibration_error": calibration_error(after, y),
    }
    found = replace(found, metrics=metrics)
    return found if max_error is None else _with_promise(found, after, y, max_error, confidence)


def calibrate_like(
    asked: Calibration, p_NK: Floats, target: npt.NDArray[Any], weight_N: Floats, task: Task
) -> Calibration:
    """A calibration of another head with the same options."""
    confidence = 0.9 if asked.confidence is None else asked.confidence
    return calibrate(p_NK, target, weight_N, task, scale=asked.scaled, max_error=asked.max_error, confidence=confidence)


def check_task(task: Task, max_error: float | None) -> None:
    """Checks the parameters before anything is trained.

    Raises:
        ParamsError: `head.max_error` for another task than classification.
    """
    if max_error is not None and task != "classification":
        raise ParamsError(
            "params.yaml: `head.max_error` guarantees an error rate only for one label per image",
            got=f"max_error {max_error:g} with task {task}",
            allowed="a number only for classification",
            todo="set `head.max_error: null`",
        )


def check_promise(found: Calibration) -> None:
    """
    Raises:
        GraftError: `head.max_error` is set and cannot be guaranteed.
    """
    if not found.kept:
        least = math.ceil(found.metrics["least_error"] * 1000) / 1000
        raise GraftError(
            f"`head.max_error`: no threshold guarantees this error rate with {found.confidence:.0%} confidence",
            got=f"max_error {found.max_error:g}, with {found.metrics['images']} validation images",
            allowed=f"at least {least:g} with these images and this head",
            todo="add more validation images, or set a larger `head.max_error` or a lower `head.max_error_confidence`",
        )


def fit_temperature(p_NK: Floats, y_N: Ints, weight_N: Floats, zero: float = TINY) -> float:
    """T by Newton's method on F', within a bracket that is bisected if a step would leave it."""
    weight = weight_N * (len(weight_N) / weight_N.sum())
    low, high, a = FLATTEST, SHARPEST, 1.0
    for _ in range(100):
        parts = [_slope(a, p_NK[rows], y_N[rows], weight[rows], zero) for rows in blocks(len(y_N))]
        slope, curvature = np.sum([*parts, (1 - 1 / a, 1 / a**2)], axis=0)
        low, high = (a, high) if slope < 0 else (low, a)
        step = a - slope / curvature
        step = step if low < step < high else (low + high) / 2
        if abs(step - a) <= 1e-8 * a:
            break
        a = step
    return float(1 / a)


def _slope(a: float, p_NK: Floats, y_N: Ints, weight_N: Floats, zero: float) -> tuple[float, float]:
    """The data part of F' and F'' at a: the mean under softmax(a z) of the logits minus that of the true class, and its
    variance."""
    z_NK = log_of(p_NK, zero)
    lead_NK = z_NK - z_NK[np.arange(len(y_N)), y_N][:, None]
    p_NK = softmax(a * lead_NK)
    mean_N = (p_NK * lead_NK).sum(axis=1)
    variance_N = (p_NK * (lead_NK - mean_N[:, None]) ** 2).sum(axis=1)
    return float(weight_N @ mean_N), float(weight_N @ variance_N)


def calibration_error(p_NK: Floats, y_N: Ints) -> float:
    return classification.expected_calibration_error(classification.reliability(p_NK, y_N, BINS))


def _questions(p_NK: Floats, y_NK: Floats, weight_N: Floats) -> tuple[Floats, Ints, Floats]:
    return two_way(p_NK), y_NK.astype(np.int64).reshape(-1), np.repeat(weight_N, p_NK.shape[1])


def _zero(p_NK: Floats) -> float:
    """Half of the smallest probability above 0, if there are zeros."""
    return max(TINY, float(p_NK[p_NK > 0].min()) / 2) if (p_NK == 0).any() else TINY


def _with_promise(found: Calibration, p_NK: Floats, y_N: Ints, max_error: float, confidence: float) -> Calibration:
    kept = promise(p_NK.max(axis=1), p_NK.argmax(axis=1) != y_N, max_error, confidence)
    metrics = {**found.metrics, "answered": kept.answered, "least_error": kept.least}
    if kept.threshold is not None:
        metrics |= {"coverage": kept.answered / len(y_N), "error": kept.errors / kept.answered}
    return replace(found, threshold=kept.threshold, max_error=max_error, confidence=confidence, metrics=metrics)


def summary(found: Calibration) -> dict[str, Any]:
    """For the record."""
    asked = {name: getattr(found, name) for name in ("max_error", "confidence", "threshold")}
    return {"temperature": found.temperature, **({} if found.max_error is None else asked), **found.metrics}
