"""Whether an image is like those that a packaged model learned from: a conformal p-value from its reference features.

n reference images, D features, B new images. The nonconformity of an image is its distance (1 - cosine) to the k-th
nearest image of the others (Sun et al. 2022, of normalised features). The p-value is the share of images, the new one
among them, that are as far from the others or farther (Vovk et al. 2005, full conformal prediction: the new image is
one of the others for every reference image). For a new image of the same kind it is uniform: below 0.05 in 5 % of the
cases; for an image unlike all others it is small.

Images of a group are not neighbours of each other, and each group counts once, divided among its images (Lee et al.
2023), as in `scoring/conformal.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ..core.blocks import blocks
from .base import Double, Single, unit_length

FILE = "reference.safetensors"
"""In a package, with `features` (n, D) and `groups` (n,), see `register/reference_set.py`."""

NEIGHBOUR = 5
"""k, or with fewer other images their number."""


@dataclass(frozen=True)
class Typicality:
    """Attributes:
    unit_nD: the reference features, scaled to length one.
    group_n: codes of the independent groups.
    """

    unit_nD: Single
    group_n: npt.NDArray[np.int64]

    @classmethod
    def of(cls, features_nD: npt.NDArray[Any], group_n: npt.NDArray[np.int64]) -> Typicality:
        return cls(unit_length(features_nD.astype(np.float32)), np.unique(group_n, return_inverse=True)[1])

    @classmethod
    def load(cls, package: Path) -> Typicality | None:
        """None if the package has no reference images."""
        if not (package / FILE).is_file():
            return None
        tensors = load_file(package / FILE)
        return cls.of(tensors["features"], tensors["groups"]) if len(tensors["features"]) else None

    def p_values(self, features_BD: npt.NDArray[Any]) -> Double:
        """(B,), above 0 and at most 1."""
        p_B = np.empty(len(features_BD))
        for rows in blocks(len(features_BD)):
            p_B[rows] = self._p_values(unit_length(features_BD[rows].astype(np.float32)))
        return p_B

    def _p_values(self, unit_BD: Single) -> Double:
        distance_Bn = 1 - unit_BD @ self.unit_nD.T
        k = self._k
        own_B1 = np.partition(distance_Bn, k - 1, axis=1)[:, k - 1 : k]
        nearer_n, farther_n = self._neighbours
        with_new_Bn = np.clip(distance_Bn, nearer_n, farther_n)  # the k-th nearest, if the new image is one of them
        weight_n = 1 / np.bincount(self.group_n)[self.group_n]
        groups = int(self.group_n.max()) + 1
        return np.minimum(((with_new_Bn >= own_B1) @ weight_n + 1) / (groups + 1), 1.0)

    @property
    def _k(self) -> int:
        """Every image has as many others: those of other groups, and the new one."""
        return min(NEIGHBOUR, len(self.group_n) - int(np.bincount(self.group_n).max()) + 1)

    @cached_property
    def _neighbours(self) -> tuple[Single, Single]:
        """The distance of each reference image to its (k-1)-th and its k-th nearest of other groups, both (n,); minus
        infinity and infinity where there are not as many."""
        n, k = len(self.group_n), self._k
        nearer_n, farther_n = np.full(n, -np.inf, np.float32), np.full(n, np.inf, np.float32)
        for rows in blocks(n):
            distance_Bn = 1 - self.unit_nD[rows] @ self.unit_nD.T
            distance_Bn[self.group_n[rows, None] == self.group_n] = np.inf
            nearest_BK = np.sort(distance_Bn, axis=1)[:, : max(k, 1)]
            if k > 1:
                nearer_n[rows] = nearest_BK[:, k - 2]
            farther_n[rows] = nearest_BK[:, k - 1]
        return nearer_n, farther_n
