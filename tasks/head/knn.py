"""The nearest neighbours by cosine; see `common.heads.NeighbourHead`, which holds all there is to it.

Features are compared as the backbone gives them. Less their mean, or standardised, they did worse on the hand signs:
of 288 validation images 81 % and 82 % were right, against 86 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..common.core.blocks import blocks
from ..common.data.manifest import Task
from ..common.data.matrix import Matrix, spread
from ..common.heads.base import unit_length
from ..common.heads.knn import NeighbourHead
from ..common.scoring.main_metric import loss as loss_of
from .estimator import Array, Estimator, Examples, Rows, Trained, Walk

SAMPLE = 4096
"""The most rows for which a training loss is computed."""


class NearestNeighbours(Estimator):
    """A row's weight weighs its vote; a weight of two is therefore not quite the row twice, which would take two of the
    `k` places.

    Args:
        k: how many neighbours vote; all rows where there are fewer.
        temperature: of the cosine in the exponent of a vote.
    """

    def __init__(
        self, classes: list[str], task: Task = "classification", *, k: int = 20, temperature: float = 0.07
    ) -> None:
        super().__init__(classes, task)
        self.k = k
        self.temperature = temperature

    def _fit(self, examples: Examples) -> NeighbourHead:
        features_ND = examples.features_ND
        n, d = features_ND.shape
        unit_ND = np.empty((n, d), np.float16)
        for rows in blocks(n):
            unit_ND[rows] = unit_length(features_ND[rows].astype(np.float32))
        dtype = {"classification": np.int32, "multilabel": np.uint8, "regression": np.float64}[self.task]
        return NeighbourHead(
            unit_ND,
            examples.target.astype(dtype),
            examples.weight_N.astype(np.float32),
            min(self.k, n),
            self.temperature,
            self.classes,
            self.task,
        )


def path(classes: list[str], task: Task, ks: Sequence[int], temperature: float) -> Walk:
    """From many neighbours to few, all from one search. The training loss is that of validation, each row (of `SAMPLE`
    at most) by its neighbours among the others."""

    def walk(examples: Examples, held_MD: Matrix) -> Iterator[Trained]:
        head = NearestNeighbours(classes, task, k=max(ks), temperature=temperature)._fit(examples)
        found, (some, among) = head.search(held_MD), _search_others(head, examples)
        for k in sorted(ks, reverse=True):
            fewer = replace(head, k=min(k, len(head.unit)))
            loss = loss_of(fewer.vote(*among), examples.target[some], task, examples.weight_N[some])
            yield Trained({"k": k}, fewer, fewer.vote(*found), loss)

    return walk


def _search_others(head: NeighbourHead, examples: Examples) -> tuple[Rows, tuple[Array, Array]]:
    """Some rows, and (cosines, places) of the neighbours of each but for itself; see `NeighbourHead.search`."""
    n = len(examples.weight_N)
    some = spread(n, SAMPLE)
    rows = np.concatenate([examples.features_ND[row : row + 1] for row in some])
    cosine, place = replace(head, k=min(head.k + 1, n)).search(rows)
    itself = place == some[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # as many others are just like it: the last makes room
    shape = (len(some), -1)
    return some, (cosine[~itself].reshape(shape), place[~itself].reshape(shape))
