"""Thumbnails of all images, which tell copies of a picture from other pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.core.paths import Paths
from ..common.data.feature_set import FeatureSet, Rows
from ..common.feature_cache.thumbnails import SIDE, thumbnails_of
from ..common.heads.base import unit_length
from .whitening import BLOCK

ALIKE = 0.7
"""Minimum cosine of thumbnails to accept similar features, which may show only the class if it has few images."""


def thumbnails(pack: FeatureSet, paths: Paths) -> npt.NDArray[np.float16]:
    """Of every image in the order of the feature set, (N, SIDE * SIDE * C). Only images that the stage `features` has
    left no thumbnail of are decoded.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
    """
    names, image_ids = list(pack.index["path"]), list(pack.index["image_id"])
    return thumbnails_of(paths.raw, names, image_ids, pack.reading, paths, "audit: looking")


def alike(small_NV: npt.NDArray[Any], first: Rows, second: Rows) -> npt.NDArray[np.bool_]:
    """Which pairs of thumbnails have a cosine of at least `ALIKE`, as they are or with one mirrored."""
    cosine = np.empty(len(first))
    for pairs in blocks(len(first), BLOCK):
        one, other = (unit_length(small_NV[side[pairs]].astype(np.float32)) for side in (first, second))
        turned = other.reshape(len(other), SIDE, SIDE, -1)[:, :, ::-1].reshape(other.shape)
        cosine[pairs] = np.maximum((one * other).sum(axis=1), (one * turned).sum(axis=1))
    return np.asarray(cosine.round(4) >= ALIKE)
