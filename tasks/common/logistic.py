"""Multinomial logistic regression along a path of L2 strengths. N images, D features, K classes.

    loss(W, b) = sum_i s_i * -log softmax(W x_i + b)[y_i] / sum_i s_i  +  l2 / 2 * |W|^2

with standardised features x (see `Standardiser`), sample weights s and an unpenalised bias b. From strong to weak, each
strength starts where the one before ended, so that a step of the path costs a few iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from .heads import LinearHead, softmax
from .metrics import accuracy, log_loss

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Standardiser:
    """Features to zero mean and a variance of at most one.

    The variance that divides a feature is its own plus the mean over all features, so that one that hardly ever
    varies is not blown up to the weight of the others. In 5-fold cross-validation on two sets of photographs (244 and
    1,780 images, lite0) the log loss was 12 and 16 % below that of plain standardisation.
    """

    mean_D: Floats
    scale_D: Floats

    @classmethod
    def fit(cls, features_ND: npt.NDArray[np.float32], weight_N: Floats) -> Standardiser:
        mean = np.average(features_ND.astype(np.float64), axis=0, weights=weight_N)
        variance = np.average((features_ND - mean) ** 2, axis=0, weights=weight_N)
        return cls(mean, np.sqrt(variance + max(float(variance.mean()), 1e-12)))

    def __call__(self, features_ND: npt.NDArray[np.float32]) -> Floats:
        return (features_ND - self.mean_D) / self.scale_D

    def fold(self, theta_KE: Floats, classes: list[str]) -> LinearHead:
        """The same classifier for features as the backbone gives them; theta is (K, D + 1), bias last."""
        weight = theta_KE[:, :-1] / self.scale_D
        bias = theta_KE[:, -1] - weight @ self.mean_D
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32), classes)


@dataclass(frozen=True)
class Step:
    """One strength's result: theta of shape (K, D + 1), bias last; `converged` by the gradient."""

    l2: float
    theta_KE: Floats
    train_loss: float
    iterations: int
    converged: bool


def fit(
    x_ND: Floats,
    y_N: Ints,
    weight_N: Floats,
    k: int,
    l2: float,
    start_KE: Floats,
    tolerance: float,
    max_iterations: int,
) -> Step:
    """Minimises the loss at one strength by L-BFGS (Liu & Nocedal 1989), from `start_KE`."""
    share_N = weight_N / weight_N.sum()
    rows = np.arange(len(y_N))
    d = x_ND.shape[1]

    def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
        theta = flat.reshape(k, d + 1)
        weight, bias = theta[:, :-1], theta[:, -1]
        p_NK = softmax(x_ND @ weight.T + bias)
        data_loss = -share_N @ np.log(np.maximum(p_NK[rows, y_N], 1e-300))
        p_NK[rows, y_N] -= 1.0
        p_NK *= share_N[:, None]
        gradient = np.empty_like(theta)
        gradient[:, :-1] = p_NK.T @ x_ND + l2 * weight
        gradient[:, -1] = p_NK.sum(axis=0)
        return float(data_loss + 0.5 * l2 * np.sum(weight**2)), gradient.ravel()

    # One thread: the products are bound by memory, and the two BLAS copies of numpy and scipy, each with its own
    # spinning threads, made a step four times slower on two cores.
    options = {"gtol": tolerance, "ftol": 0.0, "maxiter": max_iterations, "maxfun": 4 * max_iterations, "maxcor": 20}
    with threadpool_limits(1, user_api="blas"):
        found = minimize(loss_and_gradient, start_KE.ravel(), jac=True, method="L-BFGS-B", options=options)
    converged = bool(np.abs(found.jac).max() <= tolerance)
    return Step(l2, found.x.reshape(k, d + 1), float(found.fun), int(found.nit), converged)


def path(
    x_ND: Floats, y_N: Ints, weight_N: Floats, k: int, strengths: Floats, tolerance: float, max_iterations: int
) -> Iterator[Step]:
    """Every strength in the order given, warm-started."""
    theta_KE = np.zeros((k, x_ND.shape[1] + 1))
    for l2 in strengths:
        step = fit(x_ND, y_N, weight_N, k, float(l2), theta_KE, tolerance, max_iterations)
        theta_KE = step.theta_KE
        yield step


@dataclass(frozen=True)
class Validated:
    """A step of the path and what validation says of it."""

    step: Step
    val_loss: float
    val_accuracy: float

    def row(self) -> dict[str, float]:
        return {
            "l2": self.step.l2,
            "log10_l2": float(np.log10(self.step.l2)),
            "train_loss": self.step.train_loss,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "iterations": self.step.iterations,
            "converged": int(self.step.converged),
        }


def search(
    steps: Iterator[Step], x_ND: Floats, y_N: Ints, weight_N: Floats, by: str, patience: int, each: Callable[[], None]
) -> tuple[list[Validated], int]:
    """Walks the path until validation has not improved for `patience` strengths; x, y and weight are validation's.

    Returns:
        What was visited, and the place of the best: least log loss, or highest accuracy (ties to the least log loss).
    """
    visited: list[Validated] = []
    best = 0
    for step in steps:
        p_NK = softmax(x_ND @ step.theta_KE[:, :-1].T + step.theta_KE[:, -1])
        visited.append(Validated(step, log_loss(p_NK, y_N, weight_N), accuracy(p_NK, y_N)))
        each()
        if _score(visited[-1], by) > _score(visited[best], by):
            best = len(visited) - 1
        if len(visited) - 1 - best >= patience:
            break
    return visited, best


def _score(result: Validated, by: str) -> tuple[float, float]:
    return (result.val_accuracy if by == "accuracy" else 0.0, -result.val_loss)
