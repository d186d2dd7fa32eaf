"""Losses of outputs after scaling by a temperature, so that models, and epochs, are not compared by how sure they are:
label smoothing alone changes that, and calibration undoes it later. N images, K classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.data.task import Task
from ..common.heads.calibration import TINY, Calibration, two_way
from ..common.scoring.main_metric import loss
from ..common.scoring.temperature import fit_temperature

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def scaled_loss(output: Floats, target: Array, weight_N: Floats, task: Task) -> float:
    """The mean loss after scaling by a temperature fitted on the same images; of numbers, the mean squared error.

    One number learned from N images makes the loss too low by about 1 / N, for all epochs alike.
    """
    return loss(_scale(output, output, target, weight_N, task), target, task, weight_N)


def cross_scaled(output: Floats, target: Array, weight_N: Floats, unit_N: Ints, task: Task) -> Floats:
    """The outputs, each half of the units scaled by the temperature fitted on the other half."""
    half_N = unit_N % 2 == 1
    if task == "regression" or half_N.all() or not half_N.any():
        return output
    scaled = np.empty_like(output)
    for mine_N in (half_N, ~half_N):
        scaled[mine_N] = _scale(output[mine_N], output[~mine_N], target[~mine_N], weight_N[~mine_N], task)
    return scaled


def losses(output: Floats, target: Array, task: Task) -> Floats:
    """The loss of each image, (N,), in nats or in the square of the number's unit."""
    if task == "regression":
        return np.asarray((output[:, 0] - target) ** 2, np.float64)
    if task == "multilabel":
        right_NK = np.where(target > 0, output, 1 - output)
        return np.asarray(-np.log(np.maximum(right_NK, TINY)).mean(axis=1))
    return np.asarray(-np.log(np.maximum(output[np.arange(len(target)), target], TINY)))


def _scale(output: Floats, known: Floats, target: Array, weight_N: Floats, task: Task) -> Floats:
    """`output` with the temperature fitted on `known`; numbers have none."""
    if task == "regression":
        return output
    each = task == "multilabel"
    p, y_N, of_each = known, target, weight_N
    if each:
        p, y_N = two_way(known), target.astype(np.int64).reshape(-1)
        of_each = np.repeat(weight_N, known.shape[1])
    return Calibration(fit_temperature(p, y_N, of_each), each=each).apply(output)
