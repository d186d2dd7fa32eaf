"""A few points that cover many: greedy k-center. N points of E numbers, M of them chosen.

Each next point is the one farthest from those already chosen (Gonzalez 1985); PatchCore (Roth et al. 2022) thins its
patches so. Taken one at a time, every choice reads all N points. Distances only fall, so a point whose distance is
known to be above all others' old ones is the next one whatever the others' new ones are: we choose among the
`CANDIDATES` farthest points as long as that holds, and update the N distances for all choices of a round in one matrix
product. The choice is that of one at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CANDIDATES = 1024
"""Points among which a round chooses."""


def farthest_first(x_NE: Singles, size: int) -> Ints:
    """The places of at most `size` points, in the order of choice, from the farthest from the mean on; fewer where all
    others are copies of chosen ones."""
    x_NE = np.ascontiguousarray(x_NE, np.float32)
    x_NE = x_NE - x_NE.mean(axis=0, dtype=np.float64).astype(np.float32)
    square_N = np.einsum("ne,ne->n", x_NE, x_NE)
    far_N = square_N.copy()
    least = 1e-6 * max(float(far_N.mean()), 1e-12)  # below is rounding
    chosen: list[int] = []
    while len(chosen) < min(size, len(x_NE)):
        fresh = _round(x_NE, square_N, far_N, size - len(chosen), least)
        if not len(fresh):
            break
        chosen.extend(fresh.tolist())
        _update(x_NE, square_N, far_N, fresh)
    return np.array(chosen or [0], np.int64)


def _round(x_NE: Singles, square_N: Singles, far_N: Singles, most: int, least: float) -> Ints:
    """The next choices, at least one unless every point is within `least` of a chosen one."""
    places, limit = _candidates(far_N)
    x_QE, square_Q, far_Q = x_NE[places], square_N[places], far_N[places].copy()
    product_QQ = x_QE @ x_QE.T
    fresh: list[int] = []
    while len(fresh) < most:
        q = int(far_Q.argmax())
        if far_Q[q] <= least or (fresh and far_Q[q] < limit):
            break
        fresh.append(q)
        np.minimum(far_Q, np.maximum(square_Q + square_Q[q] - 2 * product_QQ[q], 0), out=far_Q)
        far_Q[q] = 0
    return places[fresh]


def _candidates(far_N: Singles) -> tuple[Ints, float]:
    """(the places of the farthest points, in order; the largest distance of the others)."""
    if len(far_N) <= CANDIDATES:
        return np.arange(len(far_N)), -1.0
    order = np.argpartition(-far_N, CANDIDATES)
    return np.sort(order[:CANDIDATES]), float(far_N[order[CANDIDATES]])


def _update(x_NE: Singles, square_N: Singles, far_N: Singles, fresh: Ints) -> None:
    """The squared distance of each point to the nearest chosen one."""
    x_EF, square_F = -2 * x_NE[fresh].T, square_N[fresh]
    for rows in blocks(len(x_NE)):
        nearest_B = (x_NE[rows] @ x_EF + square_F).min(axis=1) + square_N[rows]
        np.minimum(far_N[rows], np.maximum(nearest_B, 0), out=far_N[rows])
    far_N[fresh] = 0
