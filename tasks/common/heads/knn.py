"""The head of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..data.manifest import Task
    from ..data.matrix import Matrix
from ..core.blocks import blocks
from .base import Array, Double, Head, Single, unit_length


@dataclass(frozen=True)
class NeighbourHead(Head):
    """The `k` nearest training images by cosine vote with exp(cosine / temperature) times their weight (Wu et al. 2018;
    Caron et al. 2021 for DINO). One more vote, with the weight of the smallest, is shared by all classes by frequency,
    so that no class is impossible. For regression, the output is the mean of the neighbours by the same votes.

    Attributes:
        unit: float16 (M, D), the training images' features, scaled to length one.
        target: int32 codes (M,), uint8 zeros and ones (M, K), or float64 numbers (M,).
        weight: float32 (M,).
    """

    unit: npt.NDArray[np.float16]
    target: Array
    weight: Single
    k: int
    temperature: float
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "knn"
    arrays: ClassVar[tuple[str, ...]] = ("unit", "target", "weight")

    def search(self, features_ND: Matrix) -> tuple[Single, npt.NDArray[np.int64]]:
        """(cosines, places) of the `k` nearest, both (N, k), the nearest first; of equal cosines the earlier one."""
        n = features_ND.shape[0]
        cosine, place = np.empty((n, self.k), np.float32), np.empty((n, self.k), np.int64)
        for rows in blocks(n):
            cosine[rows], place[rows] = self._search(features_ND[rows].astype(np.float32, copy=False))
        return cosine, place

    def _search(self, x_BD: Single) -> tuple[Single, npt.NDArray[np.int64]]:
        query_BD = unit_length(x_BD)
        cosine = np.empty((len(x_BD), 0), np.float32)
        place = np.empty((len(x_BD), 0), np.int64)
        for rows in blocks(len(self.unit)):
            cosine = np.hstack([cosine, query_BD @ self.unit[rows].T.astype(np.float32)])
            here = np.broadcast_to(np.arange(rows.start, rows.stop), (len(x_BD), rows.stop - rows.start))
            place = np.hstack([place, here])
            cosine, place = _best(cosine, place, self.k)
        return cosine, place

    def vote(self, cosine_BJ: Single, place_BJ: npt.NDArray[np.int64]) -> Double:
        """The output by the first `k` of the J >= k neighbours of each row: (B, K), or (B, 1) for regression."""
        cosine_BJ, place_BJ = cosine_BJ[:, : self.k], place_BJ[:, : self.k]
        likeness_BJ = np.exp((cosine_BJ - cosine_BJ[:, :1]).astype(np.float64) / self.temperature)
        votes_BJ = likeness_BJ * self.weight[place_BJ]
        if self.task == "regression":
            return ((votes_BJ * self.target[place_BJ]).sum(axis=1) / votes_BJ.sum(axis=1))[:, None]
        chosen_BK = np.zeros((len(place_BJ), len(self.classes)))
        for j in range(place_BJ.shape[1]):
            if self.task == "classification":
                chosen_BK[np.arange(len(place_BJ)), self.target[place_BJ[:, j]]] += votes_BJ[:, j]
            else:
                chosen_BK += votes_BJ[:, j, None] * self.target[place_BJ[:, j]]
        further_B1 = likeness_BJ[:, -1:] * self.weight.mean()
        return (chosen_BK + further_B1 * self.share()) / (votes_BJ.sum(axis=1, keepdims=True) + further_B1)

    def share(self) -> Double:
        """The share of each class in the weight of all images, shape (K,)."""
        weight = self.weight.astype(np.float64)
        if self.task == "classification":
            return np.bincount(self.target, weights=weight, minlength=len(self.classes)) / weight.sum()
        return cast(Double, weight @ self.target / weight.sum())

    def _output(self, x_BD: Single) -> Double:
        return self.vote(*self._search(x_BD))

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "temperature": self.temperature}


def _best(cosine: Single, place: npt.NDArray[np.int64], k: int) -> tuple[Single, npt.NDArray[np.int64]]:
    """The `k` largest of each row and their places, the largest first; of equals the first columns.

    A partition would take any of equals. So it is done on integers that are never equal: the bits of a float32 as an
    integer of the same order, and below them the column.
    """
    bits = (0.0 - cosine).view(np.int32).astype(np.int64)  # 0.0 - x: no negative zero
    order = (np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32) + np.arange(cosine.shape[1])
    if cosine.shape[1] > k:
        order = np.partition(order, k - 1, axis=1)[:, :k]
    order = np.sort(order, axis=1) & 0xFFFFFFFF
    return np.take_along_axis(cosine, order, axis=1), np.take_along_axis(place, order, axis=1)
