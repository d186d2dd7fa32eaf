"""Logistic regression: multinomial, or for several classes an image one per class. See `common.solvers.logistic`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..common.data.manifest import Task
from ..common.data.matrix import Matrix
from ..common.heads.base import Head
from ..common.heads.linear import LinearHead
from ..common.solvers import logistic
from ..common.solvers.blas import one_thread_a_product
from .estimator import Double, Estimator, Examples, Trained, Walk


class LogisticRegression(Estimator):
    """Args:
    l2: the strength of the penalty.
    tolerance: the largest entry of the gradient at which training ends.
    max_iterations: steps at most.
    scratch: see `common.solvers.logistic.path`.
    """

    def __init__(
        self,
        classes: list[str],
        task: Task = "classification",
        *,
        l2: float = 1e-2,
        tolerance: float = 1e-5,
        max_iterations: int = 1000,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(classes, task)
        self.l2 = l2
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.scratch = scratch

    def _fit(self, examples: Examples) -> Head:
        step = logistic.fit(
            examples.features_ND,
            examples.target,
            examples.weight_N,
            len(self.classes),
            self.l2,
            link=link_of(self.task),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            scratch=self.scratch,
        )
        return LinearHead(step.weight_KD, step.bias_K, self.classes, self.task)


def path(
    classes: list[str], task: Task, strengths: Double, tolerance: float, max_iterations: int, scratch: Path | None
) -> Walk:
    """Every strength, each from where the one before ended. The training loss has the penalty in it."""

    def walk(examples: Examples, held_MD: Matrix) -> Iterator[Trained]:
        steps = logistic.path(
            examples.features_ND,
            examples.target,
            examples.weight_N,
            len(classes),
            strengths,
            link=link_of(task),
            tolerance=tolerance,
            max_iterations=max_iterations,
            scratch=scratch,
        )
        for step in steps:
            head = LinearHead(step.weight_KD, step.bias_K, classes, task)
            with one_thread_a_product():
                output = head.output(held_MD)
            yield Trained({"l2": step.l2}, head, output, step.train_loss, step.iterations, step.converged)

    return walk


def link_of(task: Task) -> Literal["softmax", "sigmoid"]:
    return "softmax" if task == "classification" else "sigmoid"
