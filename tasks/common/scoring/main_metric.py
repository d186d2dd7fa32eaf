"""The main metric and the loss of each task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.task import Task
from .bootstrap import Floats
from .classification import accuracy, log_loss
from .multilabel import mean_average_precision, mean_average_precisions, rankings_of, several_log_loss
from .regression import r2, r2_of_resamples


def main_metric(output_NK: Floats, target: npt.NDArray[Any], task: Task) -> float:
    """The main metric of the task, see `task.MAIN`; more is better."""
    if task == "classification":
        return accuracy(output_NK, target)
    return mean_average_precision(output_NK, target) if task == "multilabel" else r2(output_NK[:, 0], target)


def main_metrics(output_NK: Floats, target: npt.NDArray[Any], task: Task, times_BN: Floats) -> Floats:
    """The main metric of resamples, (B,), in which image n occurs `times`."""
    total_B = times_BN.sum(axis=1)
    if task == "classification":
        return times_BN @ (output_NK.argmax(axis=1) == target) / total_B
    if task == "multilabel":
        return mean_average_precisions(rankings_of(output_NK, target), times_BN.astype(np.int32))
    centred_N = target - target.mean()
    squared_B = times_BN @ (output_NK[:, 0] - target) ** 2 / total_B
    variance_B = times_BN @ centred_N**2 / total_B - (times_BN @ centred_N / total_B) ** 2
    return r2_of_resamples(squared_B, variance_B, target)


def loss(output_NK: Floats, target: npt.NDArray[Any], task: Task, weight_N: Floats | None = None) -> float:
    """The loss of the task, see `task.LOSS`; less is better."""
    if task == "classification":
        return log_loss(output_NK, target, weight_N)
    if task == "multilabel":
        return several_log_loss(output_NK, target, weight_N)
    return float(np.average((output_NK[:, 0] - target) ** 2, weights=weight_N))
