"""The loss of logistic regression, its gradient and its curvature. N rows in R axes, K classes, blocks of B rows.

    loss(W, b) = sum_i s_i * loss_i / sum_i s_i  +  l2 / 2 * |W|^2

with standardised features x, sample weights s, and a bias b that is not penalised. With the link `softmax`, for rows of
one class each, loss_i is -log softmax(W x_i + b)[y_i]; with `sigmoid`, for rows of several, it is the sum of K binary
log losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from .principal_axes import Basis

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Link = Literal["softmax", "sigmoid"]

BLOCK = 512
"""Rows per product, few enough to stay in the processor's cache from the logits to the gradient."""

SLICES = 8
"""Parts of the rows that are summed separately and shared by threads. Their number does not depend on the machine's
threads, so neither do the sums."""

SUMS = 2**30
"""Bytes that the parts' sums may take together; above it there are fewer parts."""

CACHED, ROWS = 2**20, 256
"""A part's sums of more bytes than `CACHED` are not in the processor's cache, and take as long as some sixty rows: then
a part has `ROWS` rows at least, but there are two parts all the same."""

COLUMNS = 64
"""Classes whose gradients are turned back at a time."""


class Objective:
    """The loss, its gradient and an estimate of its curvature, for rotated rows.

    A pass computes logits, probabilities, loss and gradient of one block of rows before it reads the next.
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
        self.rows = len(rows_NR)
        self._k, self._pool = k, pool
        self._residual = _softmax_residual if link == "softmax" else _sigmoid_residual
        edges = np.linspace(0, len(rows_NR), _parts(len(rows_NR), rows_NR.shape[1], k) + 1).astype(int)
        self._edges = list(pairwise(edges))
        self._room = [np.empty((BLOCK, k), np.float32) for _ in self._edges]
        self._share_K = _class_shares(target, share_N, k)
        self._link = link

    def each(self, of: Callable[..., Any], *parts: Iterable[Any]) -> Iterable[Any]:
        """`map`, by the threads that share the rows."""
        return self._pool.map(of, *parts)

    def guess(self) -> Floats:
        """The solution with all weights zero: the bias gives each class its share of the rows."""
        theta_RK = np.zeros((len(self.basis.variance_R) + 1, self._k))
        share_K = np.clip(self._share_K, 1e-6, 1 - 1e-6)
        theta_RK[-1] = np.log(share_K) - (np.log1p(-share_K) if self._link == "sigmoid" else 0.0)
        return theta_RK

    def diagonal(self, curvature_K: Floats, l2: float) -> Floats:
        """Approximately the Hessian's diagonal, (R + 1, K)."""
        curvature_K = np.maximum(curvature_K, 1e-9)
        return np.vstack([np.outer(self.basis.variance_R, curvature_K) + l2, curvature_K])

    def within(self, gradient_RK: Floats, tolerance: float) -> bool:
        """Whether no entry of the gradient with respect to the biases and the weights of the standardised features is
        larger. The axes keep lengths: of a class whose gradient is no longer than the tolerance, no entry is larger."""
        if np.abs(gradient_RK[-1]).max() > tolerance:
            return False
        length_K = np.linalg.norm(gradient_RK[:-1], axis=0)
        longest = np.argsort(-length_K)[: np.count_nonzero(length_K > tolerance)]
        parts = (gradient_RK[:-1, longest[some]] for some in blocks(len(longest), COLUMNS))
        return all(self._steepest(part_RC) <= tolerance for part_RC in parts)

    def _steepest(self, gradient_RC: Floats) -> float:
        return float(np.abs(self.basis.axes_DR @ gradient_RC.astype(np.float32)).max(initial=0.0))

    def evaluate(self, theta_RK: Floats, l2: float) -> tuple[float, Floats, Floats]:
        """(loss, gradient (R + 1, K), mean of p (1 - p) (K,))."""
        single_RK = theta_RK.astype(np.float32)
        parts = list(self._pool.map(lambda place: self._sum(place, single_RK), range(len(self._edges))))
        loss, weight_KR, bias_K, curvature_K = parts[0]
        for more_loss, *more in parts[1:]:
            loss += more_loss
            for total, part in zip((weight_KR, bias_K, curvature_K), more, strict=True):
                total += part
        gradient_RK = np.vstack([weight_KR.T, bias_K])
        gradient_RK[:-1] += l2 * theta_RK[:-1]
        return loss + 0.5 * l2 * float(np.vdot(theta_RK[:-1], theta_RK[:-1])), gradient_RK, curvature_K

    def _sum(self, place: int, theta_RK: Singles) -> tuple[float, Floats, Floats, Floats]:
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
        return loss, weight_KR, bias_K, curvature_K


def _parts(n: int, r: int, k: int) -> int:
    """How many parts the rows are summed in."""
    sums = 8 * k * r
    most = SLICES if sums <= CACHED else int(np.clip(n // ROWS, 2, SLICES))
    return max(1, min(most, SUMS // sums))


def _softmax_residual(logits_BK: Singles, y_B: npt.NDArray[np.int64]) -> tuple[Singles, Singles]:
    """(loss (B,), p (1 - p) (B, K)); the logits become p - onehot(y), in place.

    1 - p of the right class is the sum of the others: where it is tiny, a subtraction would leave only rounding.
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
    """The same for K independent classes, with the sum of their losses; y is zeros and ones."""
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
