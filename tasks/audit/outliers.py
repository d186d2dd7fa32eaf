"""Images that are far from all others. N images, M of them to compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.blocks import blocks
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet
from ..common.heads.base import unit_length

COMPARED = 20_000
"""Maximum number of images to compare with: a sample is enough (Sun et al. 2022 used one in a hundred), and the work
grows with N and not with its square."""

NEIGHBOURS, FOR_EACH = 10, 20
"""The distance is to the tenth nearest image, so that nine similar outliers do not hide each other; with few images to
one of every 20, or all images of small classes would be outliers."""

PLACES = 4
"""Decimal places of distances and cosines: further ones depend on the order in which threads sum."""

COLUMNS = ["image_id", "path", "split", "label", "score", "distance", "nearest", "cosine"]


def far_off(pack: FeatureSet, seed: int) -> pd.DataFrame:
    """Every image in the order of the feature set: `COLUMNS`. Labels are not used.

    `distance` is 1 - cosine of the features to the nearest image number `neighbour`; `score` is how many standard
    deviations its logarithm is above the median (1.4826 times the median deviation is a standard deviation); `nearest`
    is the path of the nearest image, and `cosine` the cosine of the two. Lossless copies count as one image: they would
    be each other's neighbours.
    """
    n = len(pack.index)
    picture_N, pictures = pd.factorize(pack.index["pixels"])
    first = np.flatnonzero(~pack.index["pixels"].duplicated().to_numpy())
    chosen = first[np.sort(np.random.default_rng(seed).permutation(len(pictures))[:COMPARED])]
    compared_MD = unit_length(pack.features(chosen))
    k = neighbour(len(pictures))
    distance, nearest, cosine = np.empty(n), np.empty(n, np.int64), np.empty(n)
    with progress("audit: neighbours", n) as bar:
        for rows in blocks(n, 1024):
            places = np.arange(rows.start, rows.stop)
            cosines = (unit_length(pack.features(places)) @ compared_MD.T).round(PLACES)
            cosines[picture_N[places][:, None] == picture_N[chosen]] = -1.0  # not with itself
            distance[rows] = (1 - np.partition(cosines, -k, axis=1)[:, -k].astype(np.float64)).round(PLACES)
            nearest[rows] = chosen[cosines.argmax(axis=1)]
            cosine[rows] = cosines.max(axis=1).astype(np.float64).round(PLACES)
            bar.add(len(places))
    table = pack.index[["image_id", "path", "split", "label"]].assign(
        score=_robust(np.log(np.maximum(distance, 0.1**PLACES))),
        distance=distance,
        nearest=pack.index["path"].to_numpy()[nearest],
        cosine=cosine,
    )
    return table.astype({"label": str})[COLUMNS]


def neighbour(images: int) -> int:
    """Which of the nearest images the distance is measured to: the 10th, or an earlier one with few images."""
    return min(NEIGHBOURS, max(1, images // FOR_EACH))


def outliers(table: pd.DataFrame, score: float) -> pd.DataFrame:
    """Rows above the score, the farthest first."""
    far = table[table["score"] > score]
    return far.sort_values(["score", "path"], ascending=[False, True], ignore_index=True)


def _robust(values_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = values_N - np.median(values_N)
    scale = 1.4826 * float(np.median(np.abs(centred)))
    return centred / scale if scale > 0 else np.zeros(len(values_N))
