"""Combinations of backbones, by the mean of the outputs of their heads. M held-out images, K classes, U units.

The heads were not trained on the held-out images. Which heads to combine is chosen on some units and scored on the
others, in turn, so that the choice does not flatter the score.

A mean of probabilities is less sure than it is right, which costs log loss but no accuracy, and which calibration
undoes. Losses are therefore compared after scaling each mean with its own temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.data.task import Task
from ..common.heads.base import softmax
from ..common.heads.calibration import TINY, log_of, two_way
from ..common.scoring.paired import Paired
from ..common.scoring.temperature import fit_temperature
from .held import Floats, Held, Ints
from .ranking import Probed

TOP = 6
"""Candidates that are tried, those with the lowest loss."""

LARGEST = 4
"""Backbones in a combination."""

FOLDS = 5
"""Parts of the units: chosen on four, scored on the fifth."""

LEAST = 20
"""Units below which nothing is combined."""


@dataclass(frozen=True)
class Combination:
    """Attributes:
    names: of the backbones; the first is the best alone.
    value: the metric, of outputs for images that had no part in the choice.
    alone: that of the best single backbone, chosen in the same way.
    gain: their paired comparison.
    seconds: per image, the sum of the backbones'.
    """

    names: tuple[str, ...]
    value: float
    alone: float
    gain: Paired
    seconds: float


def combine(candidates: Sequence[Probed], held: Held, seed: int = 0) -> Combination | None:
    """The combination by greedy forward choice; None if no second backbone clearly lowers the loss, or there are too
    few images."""
    units = int(held.unit_M.max()) + 1
    top = sorted(candidates, key=lambda one: one.loss)[:TOP]
    outputs = {one.name: one.output_MK for one in top}
    if len(top) < 2 or units < LEAST:
        return None
    names = forward(outputs, held, np.arange(len(held.unit_M)))
    if len(names) < 2:
        return None
    alone_MK, together_MK = _cross_fitted(outputs, held, units, seed)
    gain = held.compare(alone_MK, together_MK, 1 - held.confidence)
    seconds = {one.name: 1 / one.images_per_second for one in top}
    return Combination(tuple(names), gain.second, gain.first, gain, sum(seconds[name] for name in names))


def forward(outputs: Mapping[str, Floats], held: Held, rows: Ints) -> list[str]:
    """Begins with the lowest loss on these rows, and adds the head whose mean with the others has the lowest loss while
    that is clearly lower: by a one-sided t test of the units' sums, divided by the number of heads to choose from."""
    target, unit_M = held.target[rows], held.unit_M[rows]
    losses = {name: scaled_losses(output[rows], target, held.task) for name, output in outputs.items()}
    names = [min(losses, key=lambda name: float(losses[name].mean()))]
    now_M, sum_MK = losses[names[0]], outputs[names[0]][rows]
    while len(names) < min(LARGEST, len(outputs)):
        others = [name for name in outputs if name not in names]
        tried = {
            name: scaled_losses((sum_MK + outputs[name][rows]) / (len(names) + 1), target, held.task) for name in others
        }
        best = min(others, key=lambda name: float(tried[name].mean()))
        if unit_p(now_M - tried[best], unit_M) > (1 - held.confidence) / len(others):
            break
        names.append(best)
        now_M, sum_MK = tried[best], sum_MK + outputs[best][rows]
    return names


def unit_p(gain_M: Floats, unit_M: Ints) -> float:
    """One-sided p-value of a t test that the units' sums are not above 0."""
    from scipy.special import stdtr

    codes = np.unique(unit_M, return_inverse=True)[1]
    sum_U = np.bincount(codes, weights=gain_M)
    spread = float(sum_U.std(ddof=1)) if len(sum_U) > 1 else 0.0
    if spread == 0:
        return 1.0
    return float(stdtr(len(sum_U) - 1, -sum_U.mean() / spread * np.sqrt(len(sum_U))))


def scaled_losses(output_MK: Floats, target: npt.NDArray[Any], task: Task) -> Floats:
    """`image_losses` after scaling with the temperature that suits these images best."""
    if task == "regression":
        return image_losses(output_MK, target, task)
    rows, answers = (output_MK, target) if task == "classification" else (two_way(output_MK), target.reshape(-1))
    codes = answers.astype(np.int64)
    temperature = fit_temperature(rows, codes, np.ones(len(rows)))
    scaled = softmax(log_of(rows, TINY) / temperature)
    losses = image_losses(scaled, codes, "classification")
    return losses.reshape(len(output_MK), -1).mean(axis=1)


def image_losses(output_MK: Floats, target: npt.NDArray[Any], task: Task) -> Floats:
    """The loss of each image, (M,), whose mean is that of `task.LOSS`."""
    if task == "regression":
        squared: Floats = (output_MK[:, 0] - target) ** 2
        return squared
    if task == "multilabel":
        right_MK = np.where(target > 0, output_MK, 1 - output_MK)
    else:
        right_MK = output_MK[np.arange(len(output_MK)), target.astype(np.int64)][:, None]
    logs: Floats = -np.log(np.maximum(right_MK, np.finfo(np.float64).tiny)).mean(axis=1)
    return logs


def _cross_fitted(outputs: Mapping[str, Floats], held: Held, units: int, seed: int) -> tuple[Floats, Floats]:
    """(M, K) twice: of the best single backbone, and of the combination, each chosen on the other folds."""
    fold_U = np.random.default_rng(seed).permutation(units) % FOLDS
    fold_M = fold_U[held.unit_M]
    alone_MK, together_MK = (np.empty_like(next(iter(outputs.values()))) for _ in range(2))
    for fold in range(FOLDS):
        names, mine = forward(outputs, held, np.flatnonzero(fold_M != fold)), fold_M == fold
        alone_MK[mine] = outputs[names[0]][mine]
        together_MK[mine] = np.mean([outputs[name][mine] for name in names], axis=0)
    return alone_MK, together_MK
