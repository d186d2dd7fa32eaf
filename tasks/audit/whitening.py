"""Whitening: rows in their principal axes, scaled to similar variance. N rows, D columns, R axes.

What many images have in common (background, camera, light) then counts little in a cosine, and what is particular to an
image counts much.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.core.scratch import scratch_array
from ..common.data.feature_set import Floats
from ..common.data.matrix import Matrix
from ..common.heads.base import unit_length
from ..common.solvers.blas import one_thread_a_product

AXES = 256
"""The axes of largest variance that are kept; the others are noise, which separated copies from their originals."""

BLOCK = 4096
"""Rows in memory at a time, beside the result."""

SAME = 1e-5
"""Of the length of a row: a row that is nearer to the mean counts as the mean."""

Doubles = npt.NDArray[np.float64]


def whitened(rows_ND: Matrix, scratch: Path | None = None) -> Floats:
    """float32 (N, R), each row of length 1; rows_ND may be on the disk. Rows that equal the mean have no direction but
    are all the same, so they get an axis of their own, and a cosine of 1 with each other.

    Along an axis of variance v a row is divided by sqrt(v + s), so that axes of almost no variance, which are noise,
    weigh less than the others; s is the variance of the axis at a quarter of those kept. The mean variance would be too
    much if a few axes have nearly all of it (images of one colour per class were then all copies), and the median too
    little for few images (of 60, copies in JPEG 50 had cosines down to 0.95 instead of 0.98).

    Args:
        scratch: a folder for the result if it is large, see `core.scratch`.
    """
    n, d = rows_ND.shape
    centre_D = _mean(rows_ND)
    central_N = _central(rows_ND, centre_D)
    axes, turned = _few(rows_ND, centre_D) if n <= d else _many(rows_ND, centre_D)
    found_NR = scratch_array((n, axes + int(central_N.any())), np.float32, scratch)
    for block in blocks(n, BLOCK):
        found_NR[block, :axes] = np.where(central_N[block, None], 0, unit_length(turned(block)))
        found_NR[block, axes:] = central_N[block, None]
    return found_NR


def _mean(rows_ND: Matrix) -> Floats:
    n, d = rows_ND.shape
    total_D = np.zeros(d)
    for block in blocks(n, BLOCK):
        total_D += rows_ND[block].sum(axis=0, dtype=np.float64)
    return (total_D / n).astype(np.float32)


def _central(rows_ND: Matrix, centre_D: Floats) -> npt.NDArray[np.bool_]:
    """Which rows equal the mean, up to rounding."""
    n = rows_ND.shape[0]
    central_N = np.empty(n, np.bool_)
    for block in blocks(n, BLOCK):
        rows = rows_ND[block].astype(np.float32)
        away = np.linalg.norm(rows - centre_D, axis=1)
        central_N[block] = away <= SAME * np.linalg.norm(rows, axis=1)
    return central_N


Turned = tuple[int, Callable[[slice], npt.NDArray[Any]]]
"""The number of axes, and what gives rows along them."""


def _few(rows_ND: Matrix, centre_D: Floats) -> Turned:
    """By the N x N products, which are fewer than D x D: their eigenvectors are the rotated rows."""
    centred_ND = rows_ND[:].astype(np.float32) - centre_D
    squared_R, turned_NR = _axes((centred_ND @ centred_ND.T).astype(np.float64), len(centred_ND) - 1)
    turned_NR = (turned_NR * np.sqrt(squared_R) / _width(squared_R)).astype(np.float32)
    return turned_NR.shape[1], lambda block: turned_NR[block]


def _many(rows_ND: Matrix, centre_D: Floats) -> Turned:
    n, d = rows_ND.shape
    covariance_DD = np.zeros((d, d))
    for block in blocks(n, BLOCK):
        centred = rows_ND[block].astype(np.float32) - centre_D
        covariance_DD += centred.T @ centred
    squared_R, axes_DR = _axes(covariance_DD, d)
    turn_DR = (axes_DR / _width(squared_R)).astype(np.float32)
    return turn_DR.shape[1], lambda block: (rows_ND[block].astype(np.float32) - centre_D) @ turn_DR


def _axes(symmetric: Doubles, most: int) -> tuple[Doubles, Doubles]:
    """Eigenvalues, the largest first, and eigenvectors; at most `most`. On one thread: on two, with other
    work on the machine, it took up to nine times as long."""
    with one_thread_a_product():
        values, vectors = np.linalg.eigh(symmetric)
    kept = max(1, min(AXES, most))
    return np.maximum(values, 0.0)[::-1][:kept], vectors[:, ::-1][:, :kept]


def _width(squared_R: Doubles) -> Doubles:
    return np.sqrt(np.maximum(squared_R + squared_R[len(squared_R) // 4], 1e-12))
