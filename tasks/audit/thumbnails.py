"""Thumbnails of all images, which tell copies of a picture from other pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.core.cores import cores
from ..common.core.paths import Paths
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.feature_cache.segments import ids_of
from ..common.feature_cache.thumbnails import SIDE, thumbnail, thumbnail_cache
from ..common.heads.base import unit_length
from ..common.images.reading import Reading
from .whitening import BLOCK

ALIKE = 0.7
"""Minimum cosine of thumbnails to accept similar features, which may show only the class if it has few images."""


def thumbnails(pack: FeatureSet, paths: Paths) -> npt.NDArray[np.float16]:
    """Of every image in the order of the feature set, (N, SIDE * SIDE * C). Only images that the stage `features` has
    left no thumbnail of are decoded.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
    """
    cache = thumbnail_cache(paths, pack.reading)
    ids = ids_of(list(pack.index["image_id"]))
    files, image_ids = [paths.raw / path for path in pack.index["path"]], list(pack.index["image_id"])

    def compute(places: npt.NDArray[np.int64]) -> None:
        with cache, ThreadPoolExecutor(cores()) as pool, progress("audit: looking", len(places)) as bar:
            small = pool.map(lambda place: thumbnail_of(files[place], image_ids[place], pack.reading), places)
            for place, pixels in zip(places, small, strict=True):
                cache.add(ids[place : place + 1], pixels[None])
                bar.add()
        cache.refresh()

    rows_NV = np.empty((len(ids), cache.dimension), np.float16)
    for places, block in cache.read_all(ids, compute):
        rows_NV[places] = block
    return rows_NV


def thumbnail_of(file: Path, image_id: str | None, reading: Reading) -> npt.NDArray[np.float32]:
    """The thumbnail of a file, see `graft.tasks.common.feature_cache.thumbnails`.

    Raises:
        DataError: the file was removed, changed or damaged after it was checked.
    """
    with reading.file(file, image_id) as picture:
        return thumbnail(picture)


def alike(small_NV: npt.NDArray[Any], first: Rows, second: Rows) -> npt.NDArray[np.bool_]:
    """Which pairs of thumbnails have a cosine of at least `ALIKE`, as they are or with one mirrored."""
    cosine = np.empty(len(first))
    for pairs in blocks(len(first), BLOCK):
        one, other = (unit_length(small_NV[side[pairs]].astype(np.float32)) for side in (first, second))
        turned = other.reshape(len(other), SIDE, SIDE, -1)[:, :, ::-1].reshape(other.shape)
        cosine[pairs] = np.maximum((one * other).sum(axis=1), (one * turned).sum(axis=1))
    return np.asarray(cosine.round(4) >= ALIKE)
