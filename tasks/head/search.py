"""Search of the grids: each candidate is trained on some rows and judged on those held out. M held-out rows in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.core.errors import GraftError
from ..common.data.manifest import Task
from ..common.data.matrix import Matrix
from ..common.heads.base import Head
from .estimator import Array, Double, Examples, Walk
from .scores import Score


@dataclass(frozen=True)
class Fold:
    """The training examples of a fold, and the features of the rows that are held out."""

    examples: Examples
    held_MD: Matrix


@dataclass(frozen=True)
class Tried:
    """A candidate and its score on the held-out rows of all folds; training metrics are the folds' mean or sum."""

    settings: dict[str, float]
    score: Score
    train_loss: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Found:
    """Attributes:
    tried: all candidates that were trained, in order.
    best: the index of the chosen one.
    output: of the chosen one for the held-out rows, in the order of the folds: (M, K) probabilities or (M, 1) numbers.
    head: the chosen one itself, if there was one fold.
    """

    tried: list[Tried]
    best: int
    output: Double
    head: Head | None

    @property
    def chosen(self) -> Tried:
        return self.tried[self.best]


@dataclass(frozen=True)
class Held:
    """Targets and weights (M,) of the held-out rows of all folds, in order; the weights have the class weights in them,
    as those that are learned with."""

    target: Array
    weight_M: Double
    task: Task


def search(
    walks: Sequence[Walk], folds: Sequence[Fold], held: Held, select: str, patience: int, each: Callable[[], Any]
) -> Found:
    """Follows each walk until `patience` candidates in a row are no better. The folds advance together, so that each
    candidate is judged on the outputs of all folds.

    Args:
        each: called after each candidate.

    Raises:
        GraftError: no candidate has a finite loss on the held-out rows.
    """
    tried: list[Tried] = []
    best: tuple[int, Double, Head | None] | None = None
    for walk in walks:
        best_here = len(tried)
        for steps in zip(*(walk(fold.examples, fold.held_MD) for fold in folds)):
            output = np.concatenate([step.output for step in steps])
            tried.append(
                Tried(
                    steps[0].settings,
                    Score.of(output, held.target, held.weight_M, held.task, select),
                    float(np.mean([step.train_loss for step in steps])),
                    sum(step.iterations for step in steps),
                    all(step.converged for step in steps),
                )
            )
            each()
            score, last = tried[-1].score, len(tried) - 1
            if best is None or score.better_than(tried[best[0]].score):
                best = last, output, steps[0].head if len(folds) == 1 else None
            if score.better_than(tried[best_here].score):
                best_here = last
            if last - best_here >= patience:
                break
    assert best is not None, "a grid has at least one candidate"
    if np.isinf(tried[best[0]].score.loss):
        raise GraftError(
            "no candidate of `head` has a finite loss on the held-out images",
            got=f"{len(tried)} tried",
            todo="check the features for extreme values, or set another `head.kind`",
        )
    return Found(tried, *best)
