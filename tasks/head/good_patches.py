"""Patches of good images to learn from, in parts that are held out in turn. N images, F parts, C channels.

The bank of a head of patches is the union of one coreset for each part. What is left without one part's coreset is the
bank that would have been built without its images, so the scores of held-out images need no second training; and F
coresets of N / F images each take F times less than one of all. Every part also leaves out its images from the mean
and covariance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.units import units_of
from ..common.maps.maps import Maps
from ..common.solvers.coreset import farthest_first

Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

POOL = 100_000
"""Patches that are kept in memory of all images together, as many of each."""


@dataclass(frozen=True)
class Pool:
    """Attributes:
    patches: float16 (N, Q, C), the same number Q of random patches of each image.
    part_N: from 0 on, of each image.
    """

    patches: npt.NDArray[np.float16]
    part_N: Rows

    @property
    def parts(self) -> int:
        return int(self.part_N.max()) + 1

    def of(self, part: int) -> Single:
        """The patches of one part, (P, C)."""
        found: Single = self.patches[self.part_N == part].reshape(-1, self.patches.shape[2]).astype(np.float32)
        return found

    def moments(self, without: int | None = None) -> tuple[Double, Double]:
        """(mean (C,), covariance (C, C)) of the patches outside a part."""
        kept = [sums for part, sums in enumerate(self._sums) if part != without]
        count, total_C, square_CC = (sum(each[1:], each[0]) for each in zip(*kept, strict=True))
        mean_C = total_C / count
        return mean_C, square_CC / count - np.outer(mean_C, mean_C)

    @cached_property
    def _sums(self) -> list[tuple[int, Double, Double]]:
        """Of each part: its patches, their sum and their products."""
        return [_sums(self.of(part)) for part in range(self.parts)]


def _sums(x_PC: Single) -> tuple[int, Double, Double]:
    total_C, square_CC = np.zeros(x_PC.shape[1]), np.zeros((x_PC.shape[1],) * 2)
    for rows in blocks(len(x_PC)):
        x_BC = x_PC[rows].astype(np.float64)
        total_C += x_BC.sum(axis=0)
        square_CC += x_BC.T @ x_BC
    return len(x_PC), total_C, square_CC


def read_pool(maps: Maps, rows: Rows, part_N: Rows, seed: int) -> Pool:
    """One pass over the maps; which patches of an image are taken depends on the image and the seed alone."""
    (level,) = maps.form.levels
    places = level.height * level.width
    taken = max(1, min(places, POOL // len(rows)))
    patches = np.empty((len(rows), taken, level.channels), np.float16)
    ids = maps.pack.index["image_id"].to_numpy()[rows]
    for which, maps_BD in maps.blocks(rows):
        for place, map_PC in zip(which.tolist(), maps_BD.reshape(len(which), places, level.channels), strict=True):
            patches[place] = map_PC[_drawn(str(ids[place]), seed, places, taken)]
    return Pool(patches, part_N)


def _drawn(image_id: str, seed: int, places: int, taken: int) -> Rows:
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()
    return np.sort(np.random.default_rng(int.from_bytes(digest, "big")).permutation(places)[:taken])


def parts_of(pack: FeatureSet, rows: Rows, folds: int, seed: int) -> Rows:
    """The part of each image, from 0 on: units stay together, the parts are of nearly the same size."""
    unit_N, names = units_of(pack, rows)
    size_U = np.bincount(unit_N)
    chance_U = [hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).hexdigest() for name in names]
    held_F, part_U = np.zeros(max(1, min(folds, len(names))), np.int64), np.empty(len(names), np.int64)
    for unit in sorted(range(len(names)), key=lambda u: (-size_U[u], chance_U[u])):
        part_U[unit] = held_F.argmin()
        held_F[part_U[unit]] += size_U[unit]
    return part_U[unit_N]


@dataclass(frozen=True)
class Space:
    """(x - mean) @ turn: patches whose channels are uncorrelated and of about the same variance."""

    mean_C: Single
    turn_CE: Single

    def __call__(self, x_PC: Single) -> Single:
        turned: Single = np.asarray((x_PC - self.mean_C) @ self.turn_CE, np.float32)
        return turned


def plain(moments: tuple[Double, Double]) -> Space:
    """Patches as they are, but for the mean."""
    return Space(moments[0].astype(np.float32), np.eye(len(moments[0]), dtype=np.float32))


def outside(moments: tuple[Double, Double], explained: float) -> Space:
    """The axes outside the subspace that has the share `explained` of the variance; at least one."""
    mean_C, covariance_CC = moments
    variance_C, axes_CC = np.linalg.eigh(covariance_CC)  # the smallest first
    share_C = np.cumsum(np.maximum(variance_C, 0)) / max(float(variance_C.sum()), 1e-12)
    kept = max(1, int(np.searchsorted(share_C, 1 - explained, side="right")))
    return Space(mean_C.astype(np.float32), axes_CC[:, :kept].astype(np.float32))


def coresets(pool: Pool, size: int) -> list[Single]:
    """For each part, its share of `size` patches that cover its own ones, (M_f, C)."""
    found = []
    for part in range(pool.parts):
        x_PC = pool.of(part)
        share = max(1, round(size * len(x_PC) / pool.patches[..., 0].size))
        found.append(x_PC[np.sort(farthest_first(x_PC, share))])
    return found
