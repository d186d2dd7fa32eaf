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
"""Images to compare with at most: so many say as well how far is far, and the work grows with N and not with its square
(Sun et al. 2022 found one in a hundred to do)."""

NEIGHBOURS, FOR_EACH = 10, 20
"""The distance to the tenth nearest, so that nine strangers who are alike do not vouch for each other; of few images,
to one for each so many of them, or classes of few would all be far from each other."""

PLACES = 4
"""Of distances and cosines: what follows is left to the order in which threads add up."""

COLUMNS = ["image_id", "path", "split", "label", "score", "distance", "nearest", "cosine"]


def far_off(pack: FeatureSet, seed: int) -> pd.DataFrame:
    """Every image in the pack's order: `COLUMNS`. Labels have no part in it.

    `distance` is 1 - cosine of the features to the nearest but `neighbour` - 1; `score` is how many robust standard
    deviations its logarithm is above the median (1.4826 times the median deviation is a standard deviation); `nearest`
    is the path of the nearest image and `cosine` theirs.
    """
    n = len(pack.index)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:COMPARED])
    compared_MD = unit_length(pack.features(chosen))
    k = neighbour(n)
    distance, nearest, cosine = np.empty(n), np.empty(n, np.int64), np.empty(n)
    with progress("audit: neighbours", n) as bar:
        for rows in blocks(n, 1024):
            places = np.arange(rows.start, rows.stop)
            cosines = (unit_length(pack.features(places)) @ compared_MD.T).round(PLACES)
            cosines[places[:, None] == chosen] = -1.0  # not with itself
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
    """To which of the nearest images the distance is measured: 10, or fewer of few images."""
    return min(NEIGHBOURS, max(1, images // FOR_EACH))


def outliers(table: pd.DataFrame, score: float) -> pd.DataFrame:
    """Rows above the score, the furthest first."""
    far = table[table["score"] > score]
    return far.sort_values(["score", "path"], ascending=[False, True], ignore_index=True)


def _robust(values_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = values_N - np.median(values_N)
    scale = 1.4826 * float(np.median(np.abs(centred)))
    return centred / scale if scale > 0 else np.zeros(len(values_N))
