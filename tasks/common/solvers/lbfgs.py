"""The steps that L-BFGS remembers, and what they say of the Hessian. R axes and a bias, K classes, P = (R + 1) * K.

A step is kept with the change of the rows' part of the gradient, so that it holds for any strength of the penalty. Few
parameters are in the processor's cache: two loops over the steps in float64 (Nocedal 1980). Many are not, and what
counts is how often the steps are read: the same matrix in its compact form (Byrd, Nocedal and Schnabel 1994) reads each
step three times an iteration, as float32, which is as exact as the gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from .objective import CACHED, Floats, Singles

Each = Callable[..., Iterable[Any]]
"""`map`, or that of an executor."""

PAIRS, PAIR_BYTES = 32, 512 * 2**20
"""Steps that are remembered, or as many as take so much memory."""

PAIR_ROWS = 128
"""Outside the processor's cache, what is done with a step that is remembered takes as long as so many rows: as many are
remembered as take no longer than the rows, but `FEWEST` at least."""

FEWEST, LEAST = 8, 4
"""Steps at least: that are worth their time, and whatever memory they take."""

PIECE = 2**16
"""Parameters that a thread takes at a time, whose products are summed in float32."""


class Steps(Protocol):
    """What the solver needs of the steps."""

    def at(self, l2: float, diagonal_RK: Floats) -> None:
        """From now on for this strength, around this estimate of the Hessian's diagonal."""

    def add(self, moved_RK: Floats, bent_RK: Floats) -> None:
        """One more step, and by how much it changed the gradient of the rows' part of the loss, if it was convex."""

    def times_inverse_hessian(self, gradient_RK: Floats) -> Floats: ...

    def __len__(self) -> int: ...


def remember(rows: int, shape: tuple[int, ...], each: Each) -> Steps:
    """Room for steps of parameters of this shape, for a problem of so many rows."""
    size = 8 * int(np.prod(shape))
    return Loops(PAIRS) if size <= CACHED else Compact(remembered(rows, size), shape, each)


def remembered(rows: int, size: int) -> int:
    """How many steps are remembered, of parameters of `size` bytes."""
    worth = PAIRS if size <= CACHED else max(FEWEST, rows // PAIR_ROWS)
    return int(np.clip(min(worth, PAIR_BYTES // size), LEAST, PAIRS))


class Loops:
    """Two loops over the steps, around the diagonal scaled to the last of them."""

    def __init__(self, most: int) -> None:
        self._memory: deque[tuple[Floats, Floats]] = deque(maxlen=most)
        self._pairs: deque[_Pair] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._memory)

    def at(self, l2: float, diagonal_RK: Floats) -> None:
        self._l2, self._diagonal_RK = l2, diagonal_RK
        self._pairs.clear()
        self._pairs.extend(_Pair.at(l2, moved_RK, bent_RK) for moved_RK, bent_RK in self._memory)

    def add(self, moved_RK: Floats, bent_RK: Floats) -> None:
        if np.vdot(moved_RK, bent_RK) > 0:
            self._memory.append((moved_RK, bent_RK))
            self._pairs.append(_Pair.at(self._l2, moved_RK, bent_RK))

    def times_inverse_hessian(self, gradient_RK: Floats) -> Floats:
        result_RK, room_RK, shares = gradient_RK.copy(), np.empty_like(gradient_RK), []
        for moved_RK, bent_RK, curved in reversed(self._pairs):
            shares.append(float(np.vdot(moved_RK, result_RK)) / curved)
            result_RK -= np.multiply(bent_RK, shares[-1], out=room_RK)
        result_RK /= self._diagonal_RK
        if self._pairs:
            _, bent_RK, curved = self._pairs[-1]
            result_RK *= curved / float(np.vdot(np.divide(bent_RK, self._diagonal_RK, out=room_RK), bent_RK))
        for (moved_RK, bent_RK, curved), share in zip(self._pairs, reversed(shares), strict=True):
            left = share - float(np.vdot(bent_RK, result_RK)) / curved
            result_RK += np.multiply(moved_RK, left, out=room_RK)
        return result_RK


class _Pair(NamedTuple):
    """A step, by how much it changed the gradient at a strength, and their product."""

    moved_RK: Floats
    bent_RK: Floats
    curved: float

    @classmethod
    def at(cls, l2: float, moved_RK: Floats, bent_RK: Floats) -> _Pair:
        """`bent_RK`: of the rows' part of the loss."""
        bent_RK = bent_RK + l2 * of_weights(moved_RK)
        return cls(moved_RK, bent_RK, float(np.vdot(moved_RK, bent_RK)))


def of_weights(theta_RK: Floats) -> Floats:
    """Without the bias, which has no penalty."""
    return np.vstack([theta_RK[:-1], np.zeros_like(theta_RK[-1:])])


class Compact:
    """H = G + [S GY] [[A' (C + Y'GY) A, -A'], [-A, 0]] [S GY]', with S the steps, Y the changes of the gradient, G the
    inverse of the diagonal scaled to the last step, C the diagonal of S'Y, and A the inverse of its upper triangle, in
    which no step is newer than the change.

    Steps are scaled so that the product with their change was 1, which changes nothing in H. M steps, stored as rows in
    a ring: the oldest makes room.
    """

    def __init__(self, most: int, shape: tuple[int, ...], each: Each) -> None:
        parameters, self._bias = int(np.prod(shape)), shape[-1]
        self._moved_MP, self._bent_MP = (np.empty((most, parameters), np.float32) for _ in range(2))
        self._moved_bent_MM, self._bent_bent_MM = np.zeros((most, most)), np.zeros((most, most))
        self._pieces, self._each = list(blocks(parameters, PIECE)), each
        self._added, self._l2 = 0, 0.0

    def __len__(self) -> int:
        return min(self._added, len(self._moved_MP))

    def at(self, l2: float, diagonal_RK: Floats) -> None:
        self._inverse_P = (1 / diagonal_RK).astype(np.float32).ravel()
        m, more, weights = len(self), np.float32(l2 - self._l2), self._inverse_P.size - self._bias

        def bend(piece: slice) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            moved, bent = self._moved_MP[:m, piece], self._bent_MP[:m, piece]
            bent[:, : max(weights - piece.start, 0)] += more * moved[:, : max(weights - piece.start, 0)]
            return moved @ bent.T, (bent * self._inverse_P[piece]) @ bent.T

        self._moved_bent_MM[:m, :m], self._bent_bent_MM[:m, :m] = self._summed(bend)
        self._l2 = l2

    def add(self, moved_RK: Floats, bent_RK: Floats) -> None:
        curved = float(np.vdot(moved_RK, bent_RK))
        if curved <= 0:
            return
        scale = (curved + self._l2 * float(np.vdot(moved_RK[:-1], moved_RK[:-1]))) ** -0.5
        new, weights = self._added % len(self._moved_MP), moved_RK.size - self._bias
        np.multiply(moved_RK.ravel(), scale, out=self._moved_MP[new], casting="same_kind")
        np.multiply(bent_RK.ravel(), scale, out=self._bent_MP[new], casting="same_kind")
        self._bent_MP[new, :weights] += np.float32(self._l2) * self._moved_MP[new, :weights]
        self._added += 1
        with_moved_M, with_bent_M = self._products(self._bent_MP[new], self._inverse_P * self._bent_MP[new])
        m = len(self)
        self._moved_bent_MM[:m, new] = with_moved_M
        self._bent_bent_MM[:m, new] = self._bent_bent_MM[new, :m] = with_bent_M

    def times_inverse_hessian(self, gradient_RK: Floats) -> Floats:
        result_P, gradient_P = (gradient_RK.ravel() * self._inverse_P), gradient_RK.astype(np.float32).ravel()
        if not len(self):
            return result_P.reshape(gradient_RK.shape)
        order = np.arange(self._added - len(self), self._added) % len(self._moved_MP)  # from old to new
        by_age = np.ix_(order, order)
        triangle_MM, last = np.triu(self._moved_bent_MM[by_age]), order[-1]
        scale = self._moved_bent_MM[last, last] / self._bent_bent_MM[last, last]
        with_moved_M, with_bent_M = self._products(gradient_P, result_P.astype(np.float32))
        u_M = np.linalg.solve(triangle_MM, with_moved_M[order])
        inner_M = (np.diag(np.diag(triangle_MM)) + scale * self._bent_bent_MM[by_age]) @ u_M
        v_M = np.linalg.solve(triangle_MM.T, inner_M - scale * with_bent_M[order])
        of_moved_M, of_bent_M = np.zeros((2, len(self)), np.float32)
        of_moved_M[order], of_bent_M[order] = v_M, scale * u_M
        result_P *= scale
        self._combine(result_P, of_moved_M, of_bent_M)
        return result_P.reshape(gradient_RK.shape)

    def _products(self, with_moved_P: Singles, with_bent_P: Singles) -> tuple[Floats, Floats]:
        """(steps times one vector, changes times another), both (M,)."""
        m = len(self)
        return self._summed(
            lambda piece: (
                self._moved_MP[:m, piece] @ with_moved_P[piece],
                self._bent_MP[:m, piece] @ with_bent_P[piece],
            )
        )

    def _combine(self, result_P: Floats, of_moved_M: Singles, of_bent_M: Singles) -> None:
        """Adds the sum of the steps, and takes away that of the changes times the inverse of the diagonal."""

        def add(piece: slice) -> None:
            bent = of_bent_M @ self._bent_MP[: len(self), piece]
            result_P[piece] += of_moved_M @ self._moved_MP[: len(self), piece] - bent * self._inverse_P[piece]

        for _ in self._each(add, self._pieces):
            pass

    def _summed(self, of_piece: Callable[[slice], tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> tuple[Floats, Floats]:
        """Over all pieces, in float64 and in their order."""
        first, second = zip(*self._each(of_piece, self._pieces), strict=True)
        return np.sum(first, axis=0, dtype=np.float64), np.sum(second, axis=0, dtype=np.float64)
