"""Images that are far from all others. N images, M of them to compare with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.blocks import blocks
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Floats, Rows
from ..common.heads.base import unit_length
from ..common.solvers.neighbours import Index, is_large

Doubles = npt.NDArray[np.float64]

COMPARED = 20_000
"""Maximum number of images to compare with: a sample is enough (Sun et al. 2022 used one in a hundred), and the work
grows with N and not with its square."""

NEIGHBOURS, FOR_EACH = 10, 20
"""The distance is to the tenth nearest image, so that nine similar outliers do not hide each other; with few images to
one of every 20, or all images of small classes would be outliers."""

PLACES = 4
"""Decimal places of distances and cosines: further ones depend on the order in which threads sum."""

COLUMNS = ["image_id", "path", "split", "label", "score", "distance", "nearest", "cosine"]


def far_off(pack: FeatureSet, seed: int, limit: float = 0.0) -> pd.DataFrame:
    """Every image in the order of the feature set: `COLUMNS`. Labels are not used.

    `distance` is 1 - cosine of the features to the nearest image number `neighbour`; `score` is how many standard
    deviations its logarithm is above the median (1.4826 times the median deviation is a standard deviation); `nearest`
    is the path of the nearest image, and `cosine` the cosine of the two. Lossless copies count as one image: they would
    be each other's neighbours.

    Of very many images an index proposes the neighbours (`solvers/neighbours.py`). It may miss some, so that distances
    are too large, never too small; those of images above the limit are therefore measured again, to all images that
    are compared with: what is reported is exact.

    Args:
        limit: of the score.
    """
    n = len(pack.index)
    picture_N, pictures = pd.factorize(pack.index["pixels"])
    first = np.flatnonzero(~pack.index["pixels"].duplicated().to_numpy())
    chosen = first[np.sort(np.random.default_rng(seed).permutation(len(pictures))[:COMPARED])]
    search = _Search(pack, picture_N, chosen, neighbour(len(pictures)))
    if is_large(n):
        search.measure(np.arange(n), search.proposed)
        again = np.flatnonzero(search.score() > limit)
        search.measure(again, search.all)
    else:
        search.measure(np.arange(n), search.all)
    table = pack.index[["image_id", "path", "split", "label"]].assign(
        score=search.score(),
        distance=search.distance_N,
        nearest=pack.index["path"].to_numpy()[search.nearest_N],
        cosine=search.cosine_N,
    )
    return table.astype({"label": str})[COLUMNS]


class _Search:
    """The distance of images to the k-th nearest of those chosen to compare with, and the nearest."""

    def __init__(self, pack: FeatureSet, picture_N: Rows, chosen: Rows, k: int) -> None:
        n = len(pack.index)
        self._pack, self._picture_N, self._chosen, self._k = pack, picture_N, chosen, k
        self._compared_MD = unit_length(pack.features(chosen))
        self.distance_N, self.nearest_N, self.cosine_N = np.empty(n), np.empty(n, np.int64), np.empty(n)

    def measure(self, images: Rows, cosines_of: Callable[[Floats], tuple[Floats, Rows]]) -> None:
        """Args:
        cosines_of: (B, D) -> cosines (B, J) with some of those to compare with, and their numbers.
        """
        with progress("audit: neighbours", len(images)) as bar:
            for rows in blocks(len(images), 1024):
                places = images[rows]
                cosines, number = cosines_of(unit_length(self._pack.features(places)))
                cosines = cosines.round(PLACES)
                cosines[self._picture_N[places][:, None] == self._picture_N[self._chosen[number]]] = -1.0  # itself
                kth = np.partition(cosines, -self._k, axis=1)[:, -self._k].astype(np.float64)
                best = cosines.argmax(axis=1)
                self.distance_N[places] = (1 - kth).round(PLACES)
                self.nearest_N[places] = self._chosen[np.take_along_axis(number, best[:, None], axis=1)[:, 0]]
                self.cosine_N[places] = cosines.max(axis=1).astype(np.float64).round(PLACES)
                bar.add(len(places))

    def all(self, unit_BD: Floats) -> tuple[Floats, Rows]:
        m = len(self._chosen)
        return unit_BD @ self._compared_MD.T, np.broadcast_to(np.arange(m), (len(unit_BD), m))

    def proposed(self, unit_BD: Floats) -> tuple[Floats, Rows]:
        """Those that the index proposes: one more than asked, as one may be the image itself."""
        number = self._index.nearest(unit_BD, self._k + 1)
        cosines = np.einsum("bd,bjd->bj", unit_BD, self._compared_MD[np.maximum(number, 0)])
        return np.where(number < 0, -1.0, cosines).astype(np.float32), np.maximum(number, 0)

    @cached_property
    def _index(self) -> Index:
        index = Index(self._compared_MD)
        index.add(self._compared_MD)
        return index

    def score(self) -> Doubles:
        return _robust(np.log(np.maximum(self.distance_N, 0.1**PLACES)))


def neighbour(images: int) -> int:
    """Which of the nearest images the distance is measured to: the 10th, or an earlier one with few images."""
    return min(NEIGHBOURS, max(1, images // FOR_EACH))


def outliers(table: pd.DataFrame, score: float) -> pd.DataFrame:
    """Rows above the score, the farthest first."""
    far = table[table["score"] > score]
    return far.sort_values(["score", "path"], ascending=[False, True], ignore_index=True)


def _robust(values_N: Doubles) -> Doubles:
    centred = values_N - np.median(values_N)
    scale = 1.4826 * float(np.median(np.abs(centred)))
    return centred / scale if scale > 0 else np.zeros(len(values_N))
