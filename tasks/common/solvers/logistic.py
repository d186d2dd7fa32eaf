"""Logistic regression along a path of L2 strengths. N rows, D features, R axes of the basis, K classes.

The rows are rotated once into the principal axes of the standardised features (`principal_axes.py`). The penalty is the
same there, and the Hessian is nearly diagonal, so L-BFGS (Liu & Nocedal 1989) starts from a good guess of it: each
class's mean of p (1 - p), times the variance along each axis, plus l2. (Böhning 1992 bounds p (1 - p); here it is the
actual value.) From strong to weak, each strength starts from the parabola in log l2 through the three solutions before
it, and keeps the steps that L-BFGS remembers of them: what they say about the rows' part of the Hessian holds for any
l2. A strength then costs about four passes over the rows.

Products are float32; parameters and sums over blocks are float64. The loss is defined in `objective.py`, and what
L-BFGS does with its steps in `lbfgs.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.cores import cores
from ..data.matrix import Matrix
from .blas import one_thread_a_product
from .lbfgs import Steps, of_weights, remember
from .objective import CACHED, Floats, Link, Objective, Singles
from .principal_axes import Basis, rotate, take

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
        scratch: a folder for the rotated rows if they are more than memory should hold (`core.scratch.IN_MEMORY`).
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
            problem = Objective(self.basis, self.rows(places), target, share_P, k, self._link, pool)
            return _single(problem, l2, tolerance, max_iterations)


def _single(problem: Objective, l2: float, tolerance: float, max_iterations: int) -> Step:
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
    problem: Objective,
    strengths: Sequence[float] | Floats,
    tolerance: float,
    limit: int,
    start_RK: Floats,
) -> Iterator[_Point]:
    known: deque[_Point] = deque(maxlen=3)
    steps = remember(problem.rows, start_RK.shape, problem.each)
    for l2 in map(float, strengths):
        at_RK = _extrapolate(known, l2) if known else start_RK
        with one_thread_a_product():
            if known and start_RK.nbytes > CACHED:
                at_RK = _nearer(problem, l2, at_RK, known[-1].theta_RK)
            point = _minimise(problem, l2, at_RK, steps, tolerance * min(1.0, l2 / WEAK), limit)
        known.append(point)
        yield point


def _nearer(problem: Objective, l2: float, one_RK: Floats, other_RK: Floats) -> Floats:
    """Which of two starts has the lower loss. Through loose solutions of weak strengths, an extrapolation may miss by
    far: of 330 classes of two rows, the 14 strengths before 1e-6 took 71 iterations, and 18 with this choice."""
    return min(one_RK, other_RK, key=lambda theta_RK: problem.evaluate(theta_RK, l2)[0])


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


def _minimise(problem: Objective, l2: float, theta_RK: Floats, steps: Steps, tolerance: float, limit: int) -> _Point:
    """L-BFGS with a diagonal first Hessian. Steps are 1; a step is halved if it raises the loss by more than rounding.

    Ends short of the tolerance after `limit` steps, or where no step lowers the loss any more.

    Args:
        steps: of the strengths before; more are added.
    """
    loss, gradient_RK, curvature_K = problem.evaluate(theta_RK, l2)
    steps.at(l2, problem.diagonal(curvature_K, l2))
    for iteration in range(limit):
        if problem.within(gradient_RK, tolerance):
            return _Point(l2, theta_RK, loss, iteration, True)
        direction_RK = -steps.times_inverse_hessian(gradient_RK)
        slope = float(np.vdot(gradient_RK, direction_RK))
        length = 1.0 if len(steps) else FIRST_STEP
        while True:
            next_RK = theta_RK + length * direction_RK
            next_loss, next_gradient_RK, _ = problem.evaluate(next_RK, l2)
            if next_loss <= loss + 1e-4 * length * slope + 1e-7 * abs(loss):
                break
            length *= 0.5
            if length < 1e-6:
                return _Point(l2, theta_RK, loss, iteration, False)
        moved_RK = next_RK - theta_RK
        steps.add(moved_RK, next_gradient_RK - gradient_RK - l2 * of_weights(moved_RK))
        theta_RK, loss, gradient_RK = next_RK, next_loss, next_gradient_RK
    return _Point(l2, theta_RK, loss, limit, problem.within(gradient_RK, tolerance))


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="logistic")


@contextmanager
def _problem(
    features_ND: Matrix, target: npt.NDArray[Any], weight_N: Floats, k: int, link: Link, scratch: Path | None
) -> Iterator[Objective]:
    with _threads() as pool:
        with one_thread_a_product():
            basis, rows_NR = rotate(features_ND, weight_N, scratch, pool.map)
        yield Objective(basis, rows_NR, target, weight_N / weight_N.sum(), k, link, pool)
