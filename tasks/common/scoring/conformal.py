"""Conformal prediction: intervals and sets that contain the truth as often as they say, whatever the head. N images.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of the nonconformity of images that the head was not
trained on, the quantile of rank `confidence` * (N + 1) is not exceeded by a new image with at least this probability.
For numbers it is the absolute error; for classes 1 minus the probability of the true class, which gives the smallest
sets on average (LAC, Sadinle et al. 2019).

If images come in units, such as patients, a new image is of a new unit. Then each unit counts once, divided among its
images (Lee, Barber & Willett 2023: hierarchical conformal prediction), and U units take the place of N images.

Held-out outputs of cross-validation are those of heads trained on a part of the images; the refitted head has seen
more, so its errors are rather smaller (cross-conformal prediction, Vovk 2015).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def nonconformity_limit(score_N: Floats, unit_N: Ints, confidence: float) -> float:
    """What the nonconformity of a new image does not exceed with this confidence; infinite with fewer units than
    `least_units`.

    Args:
        score_N: the nonconformity of held-out images.
        unit_N: codes of the independent units.
    """
    _, place_N, images_U = np.unique(unit_N, return_inverse=True, return_counts=True)
    order = np.argsort(score_N, kind="stable")
    reached_N = np.cumsum(1 / images_U[place_N[order]])
    rank = int(np.searchsorted(reached_N, confidence * (len(images_U) + 1) - 1e-9))
    return float(score_N[order[rank]]) if rank < len(order) else math.inf


def least_units(confidence: float) -> int:
    """The number of independent units from which on there is a limit: 9 for 90 %."""
    return math.ceil(confidence / (1 - confidence) - 1e-9)
