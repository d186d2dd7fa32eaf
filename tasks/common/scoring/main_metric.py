"""The metrics by which models are compared, of a data set and of its resamples, and the loss of each task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.task import MAIN, Task
from .classification import log_loss
from .images import of_resamples
from .multilabel import several_log_loss
from .ranking import mean_aurocs, mean_average_precisions, of_defects, rankings_of
from .regression import r2_of_resamples
from .resampling import Floats

CLASSES = 64
"""How many classes of several an image are counted at a time: all of many images would not fit into memory."""


def main_metric(output_NK: Floats, target: npt.NDArray[Any], task: Task) -> float:
    """The main metric of the task, see `task.MAIN`; more is better."""
    return metric_of(output_NK, target, MAIN[task].key, task)


def main_metrics(output_NK: Floats, target: npt.NDArray[Any], task: Task, times_BN: npt.NDArray[Any]) -> Floats:
    """The main metric of resamples, (B,), in which image n occurs `times`."""
    return metrics_of(output_NK, target, MAIN[task].key, task, times_BN)


def metric_of(output_NK: Floats, target: npt.NDArray[Any], metric: str, task: Task) -> float:
    """A metric of `task.METRICS`; more is better."""
    return float(metrics_of(output_NK, target, metric, task, np.ones((1, len(target)), np.int32))[0])


def metrics_of(
    output_NK: Floats, target: npt.NDArray[Any], metric: str, task: Task, times_BN: npt.NDArray[Any]
) -> Floats:
    """A metric of `task.METRICS` of resamples, (B,), in which image n occurs `times`.

    Means over classes are over the classes that occur; for one class an image, `auroc` and `mean_average_precision`
    take each class against the rest. Of anomaly scores without both good images and defects they are nan.
    """
    if task == "anomaly":
        return of_defects(output_NK[:, 0], target > 0, metric, times_BN.astype(np.int32, copy=False))
    if task == "regression":
        return _r2(output_NK[:, 0], target, times_BN)
    if task == "reconstruction":
        return of_resamples(output_NK, metric, times_BN)
    if metric in ("auroc", "mean_average_precision"):
        of = mean_aurocs if metric == "auroc" else mean_average_precisions
        return of(rankings_of(output_NK, target), times_BN.astype(np.int32, copy=False))
    if task == "multilabel":
        return _multilabel_f1(output_NK, target, times_BN)
    predicted_N = output_NK.argmax(axis=1)
    right_N, total_B = predicted_N == target, times_BN.sum(axis=1)
    if metric == "accuracy":
        return times_BN @ right_N.astype(np.float64) / total_B
    k = output_NK.shape[1]
    hits_BK = _by_class(times_BN[:, right_N], target[right_N], k)
    found_BK, actual_BK = _by_class(times_BN, predicted_N, k), _by_class(times_BN, target, k)
    if metric == "kappa":
        return _kappa(hits_BK.sum(axis=1), (found_BK * actual_BK).sum(axis=1), total_B)
    if metric == "f1_macro":
        return _mean_where(2 * hits_BK / np.maximum(found_BK + actual_BK, 1), found_BK + actual_BK > 0)
    return _mean_where(hits_BK / np.maximum(actual_BK, 1), actual_BK > 0)


def _by_class(times_BM: npt.NDArray[Any], code_M: npt.NDArray[np.int64], k: int) -> Floats:
    """(B, K): how often images of each class occur."""
    samples = len(times_BM)
    places_BM = code_M + k * np.arange(samples)[:, None]
    return np.bincount(places_BM.ravel(), times_BM.ravel(), samples * k).reshape(samples, k).astype(np.float64)


def one_hot(code_N: npt.NDArray[np.int64], k: int) -> Floats:
    """(N, K) zeros and ones."""
    return (code_N[:, None] == np.arange(k)).astype(np.float64)


def _mean_where(value_BK: Floats, known_BK: npt.NDArray[np.bool_]) -> Floats:
    return np.where(known_BK, value_BK, 0.0).sum(axis=1) / np.maximum(known_BK.sum(axis=1), 1)


def _kappa(hits_B: Floats, expected_B: Floats, total_B: npt.NDArray[Any]) -> Floats:
    """Agreement beyond that of independent labels of the same frequencies (Cohen 1960); 0 if undefined."""
    by_chance_B = expected_B / total_B.astype(np.float64) ** 2
    left_B = 1 - by_chance_B
    return np.divide(hits_B / total_B - by_chance_B, left_B, out=np.zeros(len(left_B)), where=left_B > 0)


def _multilabel_f1(output_NK: Floats, y_NK: Floats, times_BN: npt.NDArray[Any]) -> Floats:
    """The mean of the F1 of the classes that an image of the resample has, at a probability of 0.5."""
    parts = [slice(k, k + CLASSES) for k in range(0, output_NK.shape[1], CLASSES)]
    counted = [_found_counts(output_NK[:, part] >= 0.5, y_NK[:, part] > 0, times_BN) for part in parts]
    hits_BK, found_BK, actual_BK = (np.concatenate(each, axis=1) for each in zip(*counted, strict=True))
    return _mean_where(2 * hits_BK / np.maximum(found_BK + actual_BK, 1), actual_BK > 0)


def _found_counts(found_NK: npt.NDArray[Any], has_NK: npt.NDArray[Any], times_BN: npt.NDArray[Any]) -> list[Floats]:
    """(hits, found, has), each (B, K)."""
    return [times_BN @ each_NK.astype(np.float64) for each_NK in (found_NK & has_NK, found_NK, has_NK)]


def _r2(predicted_N: Floats, target: npt.NDArray[Any], times_BN: npt.NDArray[Any]) -> Floats:
    total_B = times_BN.sum(axis=1)
    centred_N = target - target.mean()
    squared_B = times_BN @ (predicted_N - target) ** 2 / total_B
    variance_B = times_BN @ centred_N**2 / total_B - (times_BN @ centred_N / total_B) ** 2
    return r2_of_resamples(squared_B, variance_B, target)


def loss(output_NK: Floats, target: npt.NDArray[Any], task: Task, weight_N: Floats | None = None) -> float:
    """The loss of the task, see `task.LOSS`; less is better. That of anomaly needs a threshold: see `anomaly.py`."""
    if task == "classification":
        return log_loss(output_NK, target, weight_N)
    if task == "multilabel":
        return several_log_loss(output_NK, target, weight_N)
    return float(np.average((output_NK[:, 0] - target) ** 2, weights=weight_N))
