"""Logistic regression along a path of L2 strengths. N rows, D features, R axes of the basis, K classes.

    loss(W, b) = sum_i s_i * loss_i / sum_i s_i  +  l2 / 2 * |W|^2

with standardised features x, sample weights s, and a bias b that is not penalised. By `link`, loss_i is
-log softmax(W x_i + b)[y_i], for rows of one class each, or the sum of K binary log losses, for rows of several.

The rows are rotated once into the principal axes of the standardised features (`basis.py`): the penalty is the same
there and the Hessian nearly diagonal, so that L-BFGS (Liu & Nocedal 1989) starts from a good guess of it: each class's
mean of p (1 - p), times the variance along each axis, plus l2. (Böhning 1992 bounds p (1 - p); this takes what it is.)
From strong to weak, each strength starts from the parabola in log l2 through the three solutions before it, and with
the steps that L-BFGS remembers of them: what they say of the rows' part of the Hessian is true at any l2. A strength
then costs about four passes over the rows.

Products are float32; parameters, the sums over blocks and L-BFGS's own arithmetic float64.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.cores import cores
from ..data.matrix import Matrix
from .blas import one_thread_a_product
from .principal_axes import Basis, rotate, take

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Link = Literal["softmax", "sigmoid"]

_Memory = deque[tuple[Floats, Floats]]
"""Steps, and by how much they changed the gradient of the rows' part of the loss."""

BLOCK = 512
"""Rows a product: they stay in the processor's cache from the logits to the gradient."""

SLICES, SUMS = 8, 2**30
"""Parts of the rows, each summed by itself, that threads share, and the bytes that the sums may take; their number does
not depend on the machine's threads, so that neither do the sums."""

PAIRS, PAIR_BYTES = 32, 512 * 2**20
"""Steps that L-BFGS remembers, or as many as take so much memory."""

FIRST_STEP = 0.4
"""Of the very first step, which nothing has corrected yet."""

STRONG, A_DECADE, LOOSE = 10.0, 2, 1e-3
"""A single weak strength is reached over stronger ones: from `STRONG` on, so many a decade, to this tolerance."""


WEAK = 1e-3
"""Below it the tolerance falls with the strength: the less the penalty bends the loss, the further away a solution is
at the same gradient."""


@dataclass(frozen=True)
class Step:
    """One strength's result.

    Attributes:
        l2: the strength.
        weight_KD, bias_K: float32, for features as they were given: the standardisation is folded in.
        train_loss: of the training rows, with the penalty.
        iterations: steps of L-BFGS.
        converged: whether the largest entry of the gradient came down to the tolerance.
    """

    l2: float
    weight_KD: Singles
    bias_K: Singles
    train_loss: float
    iterations: int
    converged: bool


def path(
    features_ND: Matrix,
    target: npt.NDArray[Any],
    weight_N: Floats,
    k: int,
    strengths: Sequence[float] | Floats,
    *,
    link: Link = "softmax",
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    scratch: Path | None = None,
) -> Iterator[Step]:
    """Every strength in the order given: best from strong to weak.

    Args:
        features_ND: float32 or float16 as the backbone gave them: an array, memory-mapped or not, or whatever else has
            a `shape` and gives rows by slices.
        target: int64 class codes (N,) for `softmax`; zeros and ones (N, K) for `sigmoid`.
        weight_N: weights of the rows; their scale has no effect.
        k: the number of classes, K.
        tolerance: the largest entry of the gradient, for standardised features, at which a strength ends; at one below
            `WEAK` so much less as it is weaker.
        max_iterations: steps for one strength at most.
        scratch: a folder for the rotated rows if they are more than memory should hold (`basis.IN_MEMORY`).
    """
    with _problem(features_ND, target, weight_N, k, link, scratch) as problem:
        for point in _walk(problem, strengths, tolerance, max_iterations, problem.guess()):
            yield point.step(problem.basis)


def fit(
    features_ND: Matrix,
    target: npt.NDArray[Any],
    weight_N: Floats,
    k: int,
    l2: float,
    *,
    link: Link = "softmax",
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    scratch: Path | None = None,
) -> Step:
    """One strength; the arguments are those of `path`."""
    with _problem(features_ND, target, weight_N, k, link, scratch) as problem:
        return _single(problem, l2, tolerance, max_iterations)


class Parts:
    """Many parts of the same rows, each learned from by itself. The rows are rotated once, which takes longer than to
    learn from a few thousand of them; all parts are standardised alike.

    No part starts from the solution of another: that would have learned the labels of rows that are held out from this
    one, and a solution is only as good as its tolerance.

    Args:
        features_ND, weight_N, link, scratch: see `path`; of all rows.
    """

    def __init__(self, features_ND: Matrix, weight_N: Floats, link: Link, scratch: Path | None) -> None:
        with _threads() as pool, one_thread_a_product():
            self.basis, self._rows_NR = rotate(features_ND, weight_N, scratch, pool.map)
        self._link, self._scratch = link, scratch

    def rows(self, places: npt.NDArray[np.int64]) -> Singles:
        """A part's rows in the basis."""
        return take(self._rows_NR, places, self._scratch)

    def fit(
        self,
        places: npt.NDArray[np.int64],
        target: npt.NDArray[Any],
        weight_P: Floats,
        k: int,
        l2: float,
        *,
        tolerance: float = 1e-5,
        max_iterations: int = 1000,
    ) -> Step:
        """Learns from the rows at `places`, P of them, whose targets and weights are given; see `fit`."""
        with _threads() as pool:
            share_P = weight_P / weight_P.sum()
            problem = _Problem(self.basis, self.rows(places), target, share_P, k, self._link, pool)
            return _single(problem, l2, tolerance, max_iterations)


def _single(problem: _Problem, l2: float, tolerance: float, max_iterations: int) -> Step:
    """One strength, over stronger ones if it is weak."""
    count = int(np.ceil(max(np.log10(STRONG / l2), 0.0) * A_DECADE))
    stronger = np.geomspace(STRONG, l2, count + 1)[:-1]
    last = deque(_walk(problem, stronger, LOOSE, max_iterations, problem.guess()), maxlen=1)
    theta_RK = last[0].theta_RK if last else problem.guess()
    (point,) = _walk(problem, [l2], tolerance, max_iterations, theta_RK)
    return point.step(problem.basis)


@dataclass(frozen=True)
class _Point:
    """A solution in the basis: theta is (R + 1, K), bias last."""

    l2: float
    theta_RK: Floats
    loss: float
    iterations: int
    converged: bool

    def step(self, basis: Basis) -> Step:
        with one_thread_a_product():
            weight_KD, bias_K = basis.out_of(self.theta_RK)
        return Step(self.l2, weight_KD, bias_K, self.loss, self.iterations, self.converged)


def _walk(
    problem: _Problem,
    strengths: Sequence[float] | Floats,
    tolerance: float,
    limit: int,
    start_RK: Floats,
) -> Iterator[_Point]:
    known: deque[_Point] = deque(maxlen=3)
    memory: _Memory = deque(maxlen=int(np.clip(PAIR_BYTES // (2 * start_RK.nbytes), 4, PAIRS)))
    for l2 in map(float, strengths):
        at_RK = _extrapolate(known, l2) if known else start_RK
        with one_thread_a_product():
            point = _minimise(problem, l2, at_RK, memory, tolerance * min(1.0, l2 / WEAK), limit)
        known.append(point)
        yield point


def _extrapolate(known: Sequence[_Point], l2: float) -> Floats:
    """Lagrange's polynomial in log l2 through the solutions known, at another l2."""
    at = [np.log(point.l2) for point in known]
    factors = [
        np.prod([(np.log(l2) - other) / (one - other) for other in at if other != one]) if at.count(one) == 1 else 0.0
        for one in at
    ]
    if 0.0 in factors:  # the same strength twice
        return known[-1].theta_RK
    return np.einsum("m,mrk->rk", factors, [point.theta_RK for point in known])


def _minimise(problem: _Problem, l2: float, theta_RK: Floats, memory: _Memory, tolerance: float, limit: int) -> _Point:
    """L-BFGS with a diagonal first Hessian. Steps are 1; a step is halved if it raises the loss by more than rounding.

    Ends short of the tolerance after `limit` steps, or where no step lowers the loss any more.

    Args:
        memory: steps are added to it.
    """
    loss, gradient_RK, curvature_K = problem.evaluate(theta_RK, l2)
    diagonal_RK = problem.diagonal(curvature_K, l2)
    for iteration in range(limit):
        if problem.steepest(gradient_RK) <= tolerance:
            return _Point(l2, theta_RK, loss, iteration, True)
        pairs = [(moved_RK, bent_RK + l2 * _of_weights(moved_RK)) for moved_RK, bent_RK in memory]
        direction_RK = -_times_inverse_hessian(gradient_RK, pairs, diagonal_RK)
        slope = float(np.vdot(gradient_RK, direction_RK))
        length = 1.0 if memory else FIRST_STEP
        while True:
            next_RK = theta_RK + length * direction_RK
            next_loss, next_gradient_RK, _ = problem.evaluate(next_RK, l2)
            if next_loss <= loss + 1e-4 * length * slope + 1e-7 * abs(loss):
                break
            length *= 0.5
            if length < 1e-6:
                return _Point(l2, theta_RK, loss, iteration, False)
        moved_RK = next_RK - theta_RK
        bent_RK = next_gradient_RK - gradient_RK - l2 * _of_weights(moved_RK)
        if np.vdot(moved_RK, bent_RK) > 0:
            memory.append((moved_RK, bent_RK))
        theta_RK, loss, gradient_RK = next_RK, next_loss, next_gradient_RK
    return _Point(l2, theta_RK, loss, limit, problem.steepest(gradient_RK) <= tolerance)


def _of_weights(theta_RK: Floats) -> Floats:
    """Without the bias, which has no penalty."""
    return np.vstack([theta_RK[:-1], np.zeros_like(theta_RK[-1:])])


def _times_inverse_hessian(gradient_RK: Floats, pairs: list[tuple[Floats, Floats]], diagonal_RK: Floats) -> Floats:
    """Two loops over the steps (Nocedal 1980), around the diagonal scaled to the last of them.

    Args:
        pairs: steps, and by how much they changed the gradient.
    """
    result_RK, shares = gradient_RK.copy(), []
    curved = [float(np.vdot(moved_RK, bent_RK)) for moved_RK, bent_RK in pairs]
    for (moved_RK, bent_RK), by in zip(reversed(pairs), reversed(curved), strict=True):
        shares.append(float(np.vdot(moved_RK, result_RK)) / by)
        result_RK -= shares[-1] * bent_RK
    result_RK /= diagonal_RK
    if pairs:
        bent_RK = pairs[-1][1]
        result_RK *= curved[-1] / float(np.vdot(bent_RK / diagonal_RK, bent_RK))
    for (moved_RK, bent_RK), by, share in zip(pairs, curved, reversed(shares), strict=True):
        result_RK += (share - float(np.vdot(bent_RK, result_RK)) / by) * moved_RK
    return result_RK


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="logistic")


@contextmanager
def _problem(
    features_ND: Matrix, target: npt.NDArray[Any], weight_N: Floats, k: int, link: Link, scratch: Path | None
) -> Iterator[_Problem]:
    with _threads() as pool:
        with one_thread_a_product():
            basis, rows_NR = rotate(features_ND, weight_N, scratch, pool.map)
        yield _Problem(basis, rows_NR, target, weight_N / weight_N.sum(), k, link, pool)


class _Problem:
    """The loss, its gradient and what is known of its curvature, for rotated rows.

    A pass goes over blocks of rows: logits, probabilities, loss and gradient of one block before the next is read.
    """

    def __init__(
        self,
        basis: Basis,
        rows_NR: Singles,
        target: npt.NDArray[Any],
        share_N: Floats,
        k: int,
        link: Link,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.basis = basis
        self._rows_NR, self._target, self._share_N = rows_NR, target, share_N.astype(np.float32)
        self._k, self._pool = k, pool
        self._residual = _softmax_residual if link == "softmax" else _sigmoid_residual
        slices = max(1, min(SLICES, SUMS // (8 * k * rows_NR.shape[1])))
        edges = np.linspace(0, len(rows_NR), slices + 1).astype(int)
        self._edges = list(pairwise(edges))
        self._room = [np.empty((BLOCK, k), np.float32) for _ in self._edges]
        self._share_K = _class_shares(target, share_N, k)
        self._link = link

    def guess(self) -> Floats:
        """The solution without any weight: the bias that gives each class its share of the rows."""
        theta_RK = np.zeros((len(self.basis.variance_R) + 1, self._k))
        share_K = np.clip(self._share_K, 1e-6, 1 - 1e-6)
        theta_RK[-1] = np.log(share_K) - (np.log1p(-share_K) if self._link == "sigmoid" else 0.0)
        return theta_RK

    def diagonal(self, curvature_K: Floats, l2: float) -> Floats:
        """The Hessian's diagonal, about: (R + 1, K)."""
        curvature_K = np.maximum(curvature_K, 1e-9)
        return np.vstack([np.outer(self.basis.variance_R, curvature_K) + l2, curvature_K])

    def steepest(self, gradient_RK: Floats) -> float:
        """The largest entry of the gradient by weights of the standardised features and by biases."""
        by_weight = self.basis.axes_DR @ gradient_RK[:-1].astype(np.float32)
        return float(max(np.abs(by_weight).max(initial=0.0), np.abs(gradient_RK[-1]).max()))

    def evaluate(self, theta_RK: Floats, l2: float) -> tuple[float, Floats, Floats]:
        """(loss, gradient (R + 1, K), mean of p (1 - p) (K,))."""
        single_RK = theta_RK.astype(np.float32)
        parts = list(self._pool.map(lambda place: self._sum(place, single_RK), range(len(self._edges))))
        loss, gradient_RK, curvature_K = parts[0]
        for more in parts[1:]:
            loss += more[0]
            gradient_RK += more[1]
            curvature_K += more[2]
        gradient_RK[:-1] += l2 * theta_RK[:-1]
        return loss + 0.5 * l2 * float(np.vdot(theta_RK[:-1], theta_RK[:-1])), gradient_RK, curvature_K

    def _sum(self, place: int, theta_RK: Singles) -> tuple[float, Floats, Floats]:
        r, k = len(theta_RK) - 1, self._k
        loss, weight_KR, bias_K, curvature_K = 0.0, np.zeros((k, r)), np.zeros(k), np.zeros(k)
        first, last = self._edges[place]
        for start in range(first, last, BLOCK):
            rows = slice(start, min(start + BLOCK, last))
            z_BR, share_B = self._rows_NR[rows], self._share_N[rows]
            r_BK = np.matmul(z_BR, theta_RK[:-1], out=self._room[place][: len(z_BR)])
            r_BK += theta_RK[-1]
            loss_B, p_BK = self._residual(r_BK, self._target[rows])
            loss += float(np.vdot(share_B, loss_B))
            curvature_K += share_B @ p_BK
            r_BK *= share_B[:, None]
            weight_KR += r_BK.T @ z_BR
            bias_K += r_BK.sum(axis=0)
        return loss, np.vstack([weight_KR.T, bias_K]), curvature_K


def _softmax_residual(logits_BK: Singles, y_B: npt.NDArray[np.int64]) -> tuple[Singles, Singles]:
    """(loss (B,), p (1 - p) (B, K)); the logits become p - onehot(y), in place.

    1 - p of the right class is summed from the others: where it is tiny, 1 - p would be nothing but rounding.
    """
    rows = np.arange(len(y_B))
    logits_BK -= logits_BK.max(axis=1, keepdims=True)
    right_B = logits_BK[rows, y_B]
    p_BK = np.exp(logits_BK, out=logits_BK)
    p_BK[rows, y_B] = 0.0
    others_B = p_BK.sum(axis=1)
    total_B = others_B + np.exp(right_B)
    p_BK /= total_B[:, None]
    wrong_B = others_B / total_B
    loss_B = np.where(wrong_B < 0.5, -np.log1p(-np.minimum(wrong_B, 0.5)), np.log(total_B) - right_B)
    p_BK[rows, y_B] = -wrong_B
    return loss_B, np.abs(p_BK) * (1 - np.abs(p_BK))


def _sigmoid_residual(logits_BK: Singles, y_BK: npt.NDArray[Any]) -> tuple[Singles, Singles]:
    """The same for K classes each by itself, with the sum of their losses; y is zeros and ones."""
    sign_BK = (1 - 2 * y_BK).astype(np.float32)
    logits_BK *= sign_BK  # large where wrong
    small_BK = np.exp(-np.abs(logits_BK))
    loss_B = (np.maximum(logits_BK, 0) + np.log1p(small_BK)).sum(axis=1)
    wrong_BK = np.where(logits_BK >= 0, 1.0, small_BK) / (1 + small_BK)
    np.multiply(wrong_BK, sign_BK, out=logits_BK)
    return loss_B, wrong_BK * (1 - wrong_BK)


def _class_shares(target: npt.NDArray[Any], share_N: Floats, k: int) -> Floats:
    if target.ndim == 2:
        return share_N @ target
    return np.bincount(target, weights=share_N, minlength=k).astype(np.float64)
