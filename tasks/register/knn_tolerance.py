"""Between what a nearest neighbours' head may say of an image, when its features are known but for rounding.

Its answers jump where the first neighbour that does not vote is as near as the last that does: then rounding decides
which of them votes. N images, M stored training images, D features, K classes (1 for a number), J votes on an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.heads.calibration import Calibration
from ..common.heads.knn import NeighbourHead, unit_length

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def bounds(
    head: NeighbourHead, calibration: Calibration, features_ND: npt.NDArray[Any], off: float
) -> tuple[Floats, Floats]:
    """The least and the largest output, calibrated, (N, K) each, if each cosine may be wrong by `off`."""
    query_ND = unit_length(features_ND.astype(np.float32))
    unit_MD = head.unit.astype(np.float32)
    found = [_of_one(head, (unit_MD @ x_D).astype(np.float64), off) for x_D in query_ND]
    low_NK, high_NK = (np.stack(ends) for ends in zip(*found, strict=True))
    return _calibrated(calibration, low_NK, high_NK), _calibrated(calibration, high_NK, low_NK)


def _calibrated(calibration: Calibration, ends_NK: Floats, others_NK: Floats) -> Floats:
    """Of each class, where all other classes are at their other end: scaled, one has most where the others have
    least."""
    if calibration.temperature == 1.0 or calibration.each:
        return calibration.apply(ends_NK)
    columns = []
    for k in range(ends_NK.shape[1]):
        mixed_NK = others_NK.copy()
        mixed_NK[:, k] = ends_NK[:, k]
        columns.append(calibration.apply(mixed_NK)[:, k])
    return np.stack(columns, axis=1)


def _of_one(head: NeighbourHead, cosine_M: Floats, off: float) -> tuple[Floats, Floats]:
    """(K,) each, of one image.

    The neighbours that surely vote are themselves; the places that remain are one vote, for the least or the most of
    what those stand for that may get them. A vote is exp(cosine / temperature), so it is wrong by a factor.
    """
    last = np.partition(cosine_M, -head.k)[-head.k]
    sure, near = np.flatnonzero(cosine_M > last + 2 * off), np.flatnonzero(np.abs(cosine_M - last) <= 2 * off)
    likeness_M = np.exp((cosine_M - cosine_M.max()) / head.temperature)
    near_votes, places = np.sort((likeness_M * head.weight)[near]), head.k - len(sure)
    least_K, most_K = _span(head, near)
    certain_JK = _targets(head, sure)
    certain_J = (likeness_M * head.weight)[sure]
    if head.task != "regression":  # see NeighbourHead
        certain_JK = np.vstack([certain_JK, head.share()])
        certain_J = np.append(certain_J, np.exp((last - cosine_M.max()) / head.temperature) * head.weight.mean())
    factor = np.exp(2 * off / head.temperature)
    low_J = np.append(certain_J, near_votes[:places].sum()) / factor
    high_J = np.append(certain_J, near_votes[-places:].sum()) * factor
    low_K = -_largest_means(-np.vstack([certain_JK, least_K]), low_J, high_J)
    return low_K, _largest_means(np.vstack([certain_JK, most_K]), low_J, high_J)


def _targets(head: NeighbourHead, rows: Rows) -> Floats:
    """(J, K): what each stands for."""
    if head.task == "classification":
        return np.asarray(head.target[rows, None] == np.arange(len(head.classes)), np.float64)
    return head.target[rows].reshape(-1, max(1, len(head.classes))).astype(np.float64)


def _span(head: NeighbourHead, rows: Rows) -> tuple[Floats, Floats]:
    """(K,) each: the least and the most that any of the rows stands for."""
    if head.task == "classification":
        count_K = np.bincount(head.target[rows], minlength=len(head.classes))
        return (count_K == len(rows)).astype(np.float64), (count_K > 0).astype(np.float64)
    target_JK = head.target[rows].reshape(-1, max(1, len(head.classes))).astype(np.float64)
    return target_JK.min(axis=0), target_JK.max(axis=0)


def _largest_means(value_JK: Floats, low_J: Floats, high_J: Floats) -> Floats:
    """(K,): the largest weighted mean of each column, if each weight may be anything between two: the large values
    weigh most and the small ones least, and where that turns, is tried."""
    order_JK = np.argsort(-value_JK, axis=0)
    value_JK = np.take_along_axis(value_JK, order_JK, axis=0)
    low_JK, high_JK = low_J[order_JK], high_J[order_JK]
    gain_JK = high_JK - low_JK
    total_JK = low_JK.sum(axis=0) + np.cumsum(gain_JK, axis=0)
    summed_JK = (low_JK * value_JK).sum(axis=0) + np.cumsum(gain_JK * value_JK, axis=0)
    return (summed_JK / total_JK).max(axis=0)
