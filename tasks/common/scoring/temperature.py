"""Fitting of a calibration on images that the head was not trained on (validation).

With class weights, see `class_bias.py`. Otherwise the temperature T minimises, with a = 1 / T and logits z = log p,

    F(a) = sum_i w_i (log sum_k exp(a z_ik) - a z_iy) + (a - 1 - log a)

that is the log loss (weights w have a mean of 1) and a Gamma prior on a, with a mode of 1 and the weight of one image.
Without it a validation set without errors would give T = 0. If images may have several classes, each has a temperature,
with a prior whose mode is the temperature that all have in common. F is convex; its derivative, the expected logit less
the right class's, is exact.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from ..core.errors import GraftError, ParamsError
from ..data.manifest import Task
from ..heads.base import softmax
from ..heads.calibration import TINY, Calibration, log_of, two_way
from . import classification
from .class_bias import fit_class_bias
from .class_thresholds import cross_fitted, f1_thresholds
from .conformal import least_units, nonconformity_limit
from .main_metric import metric_of, one_hot
from .selective import promise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Thresholds = Literal["half", "f1"]
"""From which probability on a class is predicted: 0.5, or where its F1 is largest on held-out images."""

BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""

SHARPEST, FLATTEST = 20.0, 0.05
"""The bounds of 1 / T."""

CLASS_PRIOR = 10.0
"""The weight, in images, of the common temperature in the temperature of each class."""


def calibrate(
    output: Floats,
    target: npt.NDArray[Any],
    weight_N: Floats,
    task: Task,
    *,
    scale: bool,
    max_error: float | None = None,
    confidence: float = 0.9,
    unit_N: Ints | None = None,
    class_weight_K: Floats | None = None,
    thresholds: Thresholds = "half",
    interval_confidence: float | None = None,
    set_confidence: float | None = None,
) -> Calibration:
    """All that is fitted on held-out images, as far as it is asked for.

    The threshold is None if `max_error` cannot be guaranteed, and interval and sets are missing with too few units: see
    `check_promise`.

    Args:
        output: probabilities (N, K) or numbers (N, 1) by a head, of images that it was not trained on.
        target: as `FeatureSet.targets` gives it.
        weight_N: of the images, without class weights.
        scale: fit temperatures, and with class weights the bias of each class.
        max_error: one class an image: the error rate to be guaranteed, with `confidence`.
        unit_N: codes of the independent units; none: every image is one.
        class_weight_K: one class an image: that the head was trained with. Its labels stay the same.
        thresholds: several classes an image: from which probability on a class is predicted.
        interval_confidence: numbers: the share of images whose number is to be in the interval.
        set_confidence: one class an image: the share of images whose class is to be in the prediction set.
    """
    units = np.arange(len(output)) if unit_N is None else unit_N
    if task == "regression":
        return _of_numbers(output, target, units, interval_confidence)
    if task == "multilabel":
        return _of_several(output, target, weight_N, units, scale, thresholds)
    found = Calibration(scaled=scale)
    if scale:
        found = _scaled(output, target, weight_N, class_weight_K)
    after = found.apply(output)
    if scale or max_error or set_confidence:
        found = replace(found, metrics=_metrics(found, output, after, target, weight_N, units))
    if set_confidence is not None:
        found = _with_sets(found, after, target, units, set_confidence)
    return found if max_error is None else _with_promise(found, after, target, units, max_error, confidence)


def calibrate_like(
    asked: Calibration,
    output: Floats,
    target: npt.NDArray[Any],
    weight_N: Floats,
    task: Task,
    unit_N: Ints,
) -> Calibration:
    """A calibration of another head with the same options, which was trained with the same class weights."""
    return calibrate(
        output,
        target,
        weight_N,
        task,
        scale=asked.scaled,
        max_error=asked.max_error,
        confidence=0.9 if asked.confidence is None else asked.confidence,
        unit_N=unit_N,
        class_weight_K=None if asked.class_weights is None else np.array(asked.class_weights),
        thresholds="half" if asked.thresholds is None else "f1",
        interval_confidence=asked.interval_confidence,
        set_confidence=asked.set_confidence,
    )


def _of_numbers(output_N1: Floats, y_N: Floats, unit_N: Ints, interval_confidence: float | None) -> Calibration:
    if interval_confidence is None:
        return Calibration()
    limit = nonconformity_limit(np.abs(output_N1[:, 0] - y_N), unit_N, interval_confidence)
    return Calibration(
        margin=limit if np.isfinite(limit) else None,
        interval_confidence=interval_confidence,
        metrics={"images": len(y_N), "units": len(np.unique(unit_N))},
    )


def _of_several(
    p_NK: Floats, y_NK: Floats, weight_N: Floats, unit_N: Ints, scale: bool, thresholds: Thresholds
) -> Calibration:
    if not scale and thresholds == "half":
        return Calibration()
    found = Calibration(each=True, scaled=scale)
    if scale:
        p, y, weight = _questions(p_NK, y_NK, weight_N)
        zero = _zero(p)
        common = fit_temperature(p, y, weight, zero)
        each_K = [_of_class(p_NK[:, k], y_NK[:, k], weight_N, zero, common) for k in range(p_NK.shape[1])]
        found = replace(found, zero=zero, temperature=common, temperatures=each_K)
    after_NK = found.apply(p_NK)
    if thresholds == "f1":
        found = replace(found, thresholds=f1_thresholds(after_NK, y_NK).tolist())
    return replace(found, metrics=_metrics_of_several(found, p_NK, after_NK, y_NK, weight_N, unit_N))


def _of_class(p_N: Floats, y_N: Floats, weight_N: Floats, zero: float, common: float) -> float:
    """The temperature of one class."""
    return fit_temperature(two_way(p_N), y_N.astype(np.int64), weight_N, zero, towards=common, images=CLASS_PRIOR)


def _scaled(p_NK: Floats, y_N: Ints, weight_N: Floats, class_weight_K: Floats | None) -> Calibration:
    zero = _zero(p_NK)
    if class_weight_K is None:
        return Calibration(scaled=True, zero=zero, temperature=fit_temperature(p_NK, y_N, weight_N, zero))
    temperature, bias_K = fit_class_bias(p_NK, y_N, weight_N, class_weight_K, zero)
    scale = np.exp(np.log(class_weight_K).mean() + bias_K.mean())
    return Calibration(
        scaled=True,
        zero=zero,
        temperature=temperature,
        bias=bias_K.tolist(),
        decision_weights=(scale * np.exp(-bias_K)).tolist(),
        class_weights=np.asarray(class_weight_K, np.float64).tolist(),
    )


def _metrics(
    found: Calibration, before_NK: Floats, after_NK: Floats, y_N: Ints, weight_N: Floats, unit_N: Ints
) -> dict[str, Any]:
    y_NK = one_hot(y_N, before_NK.shape[1])
    correct_N = found.decide(after_NK, "classification") == y_N
    bins = classification.reliability_of(found.score(after_NK), correct_N, BINS)
    return {
        "images": len(y_N),
        "units": len(np.unique(unit_N)),
        "log_loss_before": classification.log_loss(before_NK, y_N, weight_N),
        "log_loss": classification.log_loss(after_NK, y_N, weight_N),
        "calibration_error_before": calibration_error(before_NK, y_N),
        "calibration_error": classification.expected_calibration_error(bins),
        "classwise_calibration_error_before": classification.classwise_calibration_error(before_NK, y_NK, BINS),
        "classwise_calibration_error": classification.classwise_calibration_error(after_NK, y_NK, BINS),
    }


def _metrics_of_several(
    found: Calibration, before_NK: Floats, after_NK: Floats, y_NK: Floats, weight_N: Floats, unit_N: Ints
) -> dict[str, Any]:
    """Calibration over every class of every image; with thresholds also the macro F1 at 0.5 and, cross-fitted, at
    such thresholds."""
    before, y, weight = _questions(before_NK, y_NK, weight_N)
    after = two_way(after_NK)
    metrics: dict[str, Any] = {
        "images": len(y_NK),
        "units": len(np.unique(unit_N)),
        "log_loss_before": classification.log_loss(before, y, weight),
        "log_loss": classification.log_loss(after, y, weight),
        "calibration_error_before": calibration_error(before, y),
        "calibration_error": calibration_error(after, y),
        "classwise_calibration_error_before": classification.classwise_calibration_error(before_NK, y_NK, BINS),
        "classwise_calibration_error": classification.classwise_calibration_error(after_NK, y_NK, BINS),
    }
    if found.thresholds is not None:
        predicted_NK = cross_fitted(after_NK, y_NK, unit_N).astype(np.float64)
        metrics["f1_macro_at_half"] = metric_of(after_NK, y_NK, "f1_macro", "multilabel")
        metrics["f1_macro"] = metric_of(predicted_NK, y_NK, "f1_macro", "multilabel")
    return metrics


def check_task(
    task: Task, max_error: float | None, set_confidence: float | None = None, thresholds: Thresholds = "half"
) -> None:
    """Checks the parameters before anything is trained.

    Raises:
        ParamsError: `head.max_error` or `head.set_confidence` for another task than classification, or
            `head.thresholds` for another one than multilabel.
    """
    if max_error is not None and task != "classification":
        raise ParamsError(
            "params.yaml: `head.max_error` guarantees an error rate only for one label per image",
            got=f"max_error {max_error:g} with task {task}",
            allowed="a number only for classification",
            todo="set `head.max_error: null`",
        )
    if set_confidence is not None and task != "classification":
        raise ParamsError(
            "params.yaml: `head.set_confidence` makes sets of classes only for one label per image",
            got=f"set_confidence {set_confidence:g} with task {task}",
            allowed="a number only for classification",
            todo="set `head.set_confidence: null`",
        )
    if thresholds == "f1" and task != "multilabel":
        raise ParamsError(
            "params.yaml: `head.thresholds` are for several classes per image",
            got=f"thresholds f1 with task {task}",
            allowed="f1 only for multilabel",
            todo="set `head.thresholds: half`",
        )


def check_promise(found: Calibration) -> None:
    """
    Raises:
        GraftError: `head.max_error` is set and cannot be guaranteed, or there are too few images for
            `head.set_confidence`.
    """
    if found.max_error is not None and found.threshold is None:
        least = math.ceil(found.metrics["least_error"] * 1000) / 1000
        raise GraftError(
            f"`head.max_error`: no threshold guarantees this error rate with {found.confidence:.0%} confidence",
            got=f"max_error {found.max_error:g}, with {_counted(found)}",
            allowed=f"at least {least:g} with these images and this head",
            todo="add more validation images, or set a larger `head.max_error` or a lower `head.max_error_confidence`",
        )
    if found.set_confidence is not None and found.set_least is None:
        raise GraftError(
            f"`head.set_confidence`: no prediction set short of all classes has {found.set_confidence:.1%} confidence",
            got=_counted(found),
            allowed=f"at least {least_units(found.set_confidence)} independent images, or groups of them",
            todo="add more validation images, or set a lower `head.set_confidence`",
        )


def _counted(found: Calibration) -> str:
    images, units = found.metrics["images"], found.metrics["units"]
    return f"{images} validation images" + (f" in {units} groups" if units < images else "")


def fit_temperature(
    p_NK: Floats, y_N: Ints, weight_N: Floats, zero: float = TINY, *, towards: float = 1.0, images: float = 1.0
) -> float:
    """T by Newton's method on F', within a bracket that is bisected if a step would leave it.

    Args:
        towards: the temperature at which the prior has its mode.
        images: the weight of the prior.
    """
    weight = weight_N * (len(weight_N) / weight_N.sum())
    low, high, a = FLATTEST, SHARPEST, 1.0
    for _ in range(100):
        parts = [_slope(a, p_NK[rows], y_N[rows], weight[rows], zero) for rows in blocks(len(y_N))]
        slope, curvature = np.sum([*parts, (images * (towards - 1 / a), images / a**2)], axis=0)
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


def _with_sets(found: Calibration, p_NK: Floats, y_N: Ints, unit_N: Ints, set_confidence: float) -> Calibration:
    """The sets are of the weighed probabilities, so that the label is always in them."""
    weighed_NK = found.weighed(p_NK)
    limit = nonconformity_limit(1 - weighed_NK[np.arange(len(y_N)), y_N], unit_N, set_confidence)
    found = replace(found, set_confidence=set_confidence)
    if not np.isfinite(limit):
        return found
    found = replace(found, set_least=1 - limit)
    sizes_N = found.sets(p_NK).sum(axis=1)
    return replace(found, metrics={**found.metrics, "set_size": float(sizes_N.mean())})


def _with_promise(
    found: Calibration, p_NK: Floats, y_N: Ints, unit_N: Ints, max_error: float, confidence: float
) -> Calibration:
    wrong_N = found.decide(p_NK, "classification") != y_N
    kept = promise(found.score(p_NK), wrong_N, max_error, confidence, unit_N)
    metrics = {**found.metrics, "answered": kept.answered, "least_error": kept.least}
    if kept.threshold is not None:
        metrics |= {"coverage": kept.answered / len(y_N), "error": kept.errors / kept.answered}
    return replace(found, threshold=kept.threshold, max_error=max_error, confidence=confidence, metrics=metrics)


def summary(found: Calibration) -> dict[str, Any]:
    """For the record."""
    asked = {name: getattr(found, name) for name in ("max_error", "confidence", "threshold")}
    return {"temperature": found.temperature, **({} if found.max_error is None else asked), **found.metrics}
