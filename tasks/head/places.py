"""Moments of good images at each place of their maps, in parts that are held out in turn. One pass, whatever the number
of images. P places, E channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.data.feature_set import Rows
from ..common.heads.gaussian import coarser
from ..common.maps.form import MapForm
from ..common.maps.maps import Maps

Double = npt.NDArray[np.float64]

MOST = 1024
"""Places at most: each has a covariance of its own."""

RIDGE = 1e-3
"""Of the mean variance, added to each: with few images a covariance has directions without any."""


@dataclass(frozen=True)
class Moments:
    """Attributes:
    count: images.
    total_PE, square_PEE: sums of their channels at each place, and of their products.
    """

    count: int
    total_PE: Double
    square_PEE: Double

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total_PE - other.total_PE, self.square_PEE - other.square_PEE)

    @property
    def means(self) -> Double:
        return self.total_PE / self.count

    def around(self, mean_PE: Double) -> Double:
        """The mean product of differences from `mean_PE`, (P, E, E)."""
        cross_PEE = np.einsum("pe,pf->pef", self.means, mean_PE)
        outer_PEE = np.einsum("pe,pf->pef", mean_PE, mean_PE)
        return self.square_PEE / self.count - cross_PEE - cross_PEE.transpose(0, 2, 1) + outer_PEE

    def gaussians(self) -> tuple[Double, Double]:
        """(means (P, E), covariances (P, E, E))."""
        return self.means, _ridged(self.around(self.means))

    def gaussian(self) -> tuple[Double, Double]:
        """The mean (1, E) and the covariance (1, E, E) of all places together."""
        places = len(self.total_PE)
        total_1E, square_1EE = (each.sum(axis=0, keepdims=True) for each in (self.total_PE, self.square_PEE))
        one = Moments(self.count * places, total_1E, square_1EE)
        return one.gaussians()


@dataclass(frozen=True)
class Places:
    """Attributes:
    shape: (h, w, E).
    parts: the moments of each part of the images.
    """

    shape: tuple[int, int, int]
    parts: list[Moments]

    def without(self, part: int | None) -> Moments:
        return self._all if part is None else self._all - self.parts[part]

    @property
    def _all(self) -> Moments:
        return Moments(
            sum(one.count for one in self.parts),
            np.sum([one.total_PE for one in self.parts], axis=0),
            np.sum([one.square_PEE for one in self.parts], axis=0),
        )

    def is_better(self) -> bool:
        """Whether held-out images are more likely by a Gaussian at each place than by one for all places: the picture
        has the same thing at the same place, and there are images enough."""
        whole = self._all
        gain = 0.0
        for part in self.parts:
            rest = whole - part
            gain += part.count * (likelihood(part, *rest.gaussians()) - likelihood(part, *rest.gaussian()))
        return gain > 0


def likelihood(held: Moments, mean_PE: Double, covariance_PEE: Double) -> float:
    """The mean log-likelihood of the held-out images at a place, but for a constant; P may be 1 of the Gaussians."""
    around_PEE = held.around(np.broadcast_to(mean_PE, held.total_PE.shape))
    distance = np.einsum("pef,pef->p", np.broadcast_to(np.linalg.inv(covariance_PEE), around_PEE.shape), around_PEE)
    return -0.5 * float(distance.mean() + np.linalg.slogdet(covariance_PEE)[1].mean())


def turned(covariance_PEE: Double) -> Double:
    """T (P, E, E): T @ T.T is the inverse covariance."""
    return np.linalg.inv(np.linalg.cholesky(covariance_PEE)).transpose(0, 2, 1)


def _ridged(covariance_PEE: Double) -> Double:
    variance = float(np.einsum("pee->pe", covariance_PEE).mean())
    return covariance_PEE + max(RIDGE * variance, 1e-9) * np.eye(covariance_PEE.shape[1])


def read_places(maps: Maps, rows: Rows, part_N: Rows) -> Places:
    """One pass over the maps."""
    (level,), shape = maps.form.levels, shape_of(maps.form)
    parts = [_none(shape) for _ in range(int(part_N.max()) + 1)]
    for which, maps_BD in maps.blocks(rows):
        map_BHWC = maps_BD.reshape(-1, level.height, level.width, level.channels).astype(np.float32)
        x_PBE = coarser(map_BHWC, shape).reshape(len(which), -1, shape[2]).transpose(1, 0, 2).astype(np.float64)
        for part in np.unique(part_N[which]).tolist():
            _add(parts, part, x_PBE[:, part_N[which] == part])
    return Places(shape, parts)


def shape_of(form: MapForm) -> tuple[int, int, int]:
    """(h, w, E): the channels of the deepest module, which has the largest stride, at every second place of maps of
    several modules; at most `MOST` places."""
    (level,), step = form.levels, 1 + (len(form.parts) > 1)
    high, wide = math.ceil(level.height / step), math.ceil(level.width / step)
    share = min(1.0, math.sqrt(MOST / (high * wide)))
    return max(1, int(share * high)), max(1, int(share * wide)), form.parts[-1].channels


def _none(shape: tuple[int, int, int]) -> Moments:
    places, channels = shape[0] * shape[1], shape[2]
    return Moments(0, np.zeros((places, channels)), np.zeros((places, channels, channels)))


def _add(parts: list[Moments], part: int, x_PBE: Double) -> None:
    old = parts[part]
    for rows in blocks(len(x_PBE), 64):
        old.square_PEE[rows] += x_PBE[rows].transpose(0, 2, 1) @ x_PBE[rows]
    parts[part] = Moments(old.count + x_PBE.shape[1], old.total_PE + x_PBE.sum(axis=1), old.square_PEE)
