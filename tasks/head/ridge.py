"""Ridge regression, for numbers and as a classifier. N rows, D features, R axes, K classes or 1 number, S sampled rows.

    loss(W, b) = sum_i s_i * |y_i - W x_i - b|^2 / 2 / sum_i s_i  +  l2 / 2 * |W|^2

with standardised features x and sample weights s. In the eigenvectors U of the features' covariance the solution at any
strength is a division, so that one decomposition serves the whole path:

    W = (U' c / (lambda + l2))' U',   c = covariance of features and targets

Numbers are standardised before, which does not change the solution: the metrics of the path then have no unit.

As a classifier its targets are -1 and +1 a class (Hastie, Tibshirani & Friedman 2009, 4.2), and its scores are no
probabilities: they may lie outside [0, 1]. They become some as Platt (1999) does it, by scores of rows that were held
out (`platt.py`). Here those are each row's score by the solution without it, which least squares give in closed form
(Allen 1974):

    y_i - score_without_i = (y_i - score_i) / (1 - h_i),   h the diagonal of the hat matrix, the bias's part included

The logits are linear in the features still, so that the head is a linear one. They undo the shrinking: the strongest
strengths give the classifier of the class means, not a guess. Augmented views of an image know each other: with them
the probabilities are too confident, which calibration corrects.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.core.cores import cores
from ..common.data.manifest import Task
from ..common.data.matrix import Matrix, spread
from ..common.heads.base import Head, link
from ..common.heads.linear import LinearHead
from ..common.scoring.main_metric import loss as loss_of
from ..common.solvers.blas import one_thread_a_product
from ..common.solvers.principal_axes import rotate
from .estimator import Array, Double, Estimator, Examples, Trained, Walk
from .platt import fit_logits

SAMPLE = 4096
"""Rows at most by which scores become probabilities: a few numbers are learned from them."""

ROUNDING = 1e-12
"""What 1 - h counts as where it is less. With fewer rows than features it is about l2 by the variance along an axis."""


class Ridge(Estimator):
    """Args:
    l2: the strength of the penalty.
    scratch: see `common.solvers.logistic.path`.
    """

    def __init__(
        self, classes: list[str], task: Task = "classification", *, l2: float = 1e-2, scratch: Path | None = None
    ) -> None:
        super().__init__(classes, task)
        self.l2 = l2
        self.scratch = scratch

    def _fit(self, examples: Examples) -> Head:
        return _Solver(examples, self.classes, self.task, self.scratch).solve(self.l2)[0]


def path(classes: list[str], task: Task, strengths: Double, scratch: Path | None) -> Walk:
    """Every strength. The training loss is that of validation: the mean log loss, or the mean squared error."""

    def walk(examples: Examples, held_MD: Matrix) -> Iterator[Trained]:
        solver = _Solver(examples, classes, task, scratch)
        for l2 in map(float, strengths):
            head, loss = solver.solve(l2)
            with one_thread_a_product():
                output = head.output(held_MD)
            yield Trained({"l2": l2}, head, output, loss)

    return walk


@dataclass(frozen=True)
class _Sample:
    """Some of the rows, rotated into the eigenvectors, for what is learned from scores."""

    rows_SR: Double
    y_SK: Double
    target: Array
    weight_S: Double
    share_S: Double


class _Solver:
    """All that the strengths share."""

    def __init__(self, examples: Examples, classes: list[str], task: Task, scratch: Path | None) -> None:
        self._classes, self._task = classes, task
        share_N = examples.weight_N / examples.weight_N.sum()
        self._targets = _Targets.of(examples.target, share_N, len(classes), task)
        with one_thread_a_product():
            self._decompose(examples, share_N, scratch)

    def _decompose(self, examples: Examples, share_N: Double, scratch: Path | None) -> None:
        with ThreadPoolExecutor(cores(), thread_name_prefix="ridge") as pool:
            self._basis, rows_NR = rotate(examples.features_ND, examples.weight_N, scratch, pool.map)
        self._centre_R, covariance_RR, with_target_RK = _moments(rows_NR, self._targets, share_N)
        self._variance_R, self._turn_RR = np.linalg.eigh(covariance_RR)
        self._variance_R = np.maximum(self._variance_R, 0.0)
        self._with_target_RK = self._turn_RR.T @ with_target_RK
        some = spread(len(share_N), SAMPLE)
        self._sample = _Sample(
            (rows_NR[some] - self._centre_R) @ self._turn_RR,
            self._targets.rows(some),
            examples.target[some],
            examples.weight_N[some],
            share_N[some],
        )

    def solve(self, l2: float) -> tuple[LinearHead, float]:
        """(head, training loss)."""
        with one_thread_a_product():
            return self._solve(l2)

    def _solve(self, l2: float) -> tuple[LinearHead, float]:
        solved_RK = self._with_target_RK / (self._variance_R + l2)[:, None]
        mean_K = self._targets.mean_K
        if self._task == "regression":
            return self._head(solved_RK, self._targets.unit_K, mean_K), self._squared_error(solved_RK)
        score_SK = self._sample.rows_SR @ solved_RK
        alone_SK = self._without_itself(score_SK, l2)
        factor_K, shift_K = fit_logits(alone_SK, self._sample.target, self._sample.weight_S, self._task)
        p_SK = link(score_SK * factor_K + shift_K, self._task)
        loss = loss_of(p_SK, self._sample.target, self._task, self._sample.weight_S)
        return self._head(solved_RK, factor_K, shift_K), loss

    def _without_itself(self, score_SK: Double, l2: float) -> Double:
        """Each sampled row's score by the solution for all other rows, mean included; less the mean of all rows."""
        hat_S = self._sample.share_S * (1 + self._sample.rows_SR**2 @ (1 / (self._variance_R + l2)))
        y_SK = self._sample.y_SK
        return y_SK - (y_SK - score_SK) / np.maximum(1 - hat_S, ROUNDING)[:, None]

    def _head(self, solved_RK: Double, factor_K: Double, shift_K: Double) -> LinearHead:
        """factor * (score less its mean) + shift, for features as given."""
        theta_RK = (self._turn_RR @ solved_RK) * factor_K
        weight_KD, bias_K = self._basis.out_of(np.vstack([theta_RK, shift_K - self._centre_R @ theta_RK]))
        return LinearHead(weight_KD, bias_K, self._classes, self._task)

    def _squared_error(self, solved_RK: Double) -> float:
        """Of the training rows, in the square of the target's unit; the target's variance is 1 in its standard one."""
        explained = (solved_RK * (2 * self._with_target_RK - self._variance_R[:, None] * solved_RK)).sum()
        return float((self._targets.variance - explained) * self._targets.unit_K[0] ** 2)


@dataclass(frozen=True)
class _Targets:
    """Scores wanted, by rows, so that N x K of them need not be held: numbers standardised, or -1 and +1 less the mean.

    Attributes:
        mean_K, unit_K: y = (target - mean) / unit.
        variance: of a standardised number: 1, or 0 if all are the same.
    """

    target: Array
    k: int
    task: Task
    mean_K: Double
    unit_K: Double
    variance: float

    @classmethod
    def of(cls, target: Array, share_N: Double, k: int, task: Task) -> _Targets:
        if task == "regression":
            mean = float(share_N @ target)
            deviation = float(np.sqrt(share_N @ (target - mean) ** 2))
            return cls(target, 1, task, np.array([mean]), np.array([deviation or 1.0]), float(deviation > 0))
        mean_K = 2.0 * (np.bincount(target, share_N, k) if task == "classification" else share_N @ target) - 1.0
        return cls(target, k, task, mean_K.astype(np.float64), np.ones(k), 1.0)

    def rows(self, rows: slice | npt.NDArray[np.int64]) -> Double:
        """(B, K)"""
        target = self.target[rows]
        if self.task == "regression":
            return (target[:, None] - self.mean_K) / self.unit_K
        if self.task == "multilabel":
            return 2 * target - 1 - self.mean_K
        y_BK = np.full((len(target), self.k), -1.0)
        y_BK[np.arange(len(target)), target] = 1.0
        return y_BK - self.mean_K


def _moments(rows_NR: npt.NDArray[np.float32], targets: _Targets, share_N: Double) -> tuple[Double, Double, Double]:
    """(mean (R,), covariance (R, R), covariance with the targets (R, K)) of the rows, to float64."""
    r = rows_NR.shape[1]
    mean_R, second_RR, with_target_RK = np.zeros(r), np.zeros((r, r)), np.zeros((r, len(targets.mean_K)))
    for rows in blocks(len(rows_NR)):
        block_BR = rows_NR[rows].astype(np.float64)
        shared_BR = block_BR * share_N[rows, None]
        mean_R += shared_BR.sum(axis=0)
        second_RR += shared_BR.T @ block_BR
        with_target_RK += shared_BR.T @ targets.rows(rows)
    return mean_R, second_RR - np.outer(mean_R, mean_R), with_target_RK
