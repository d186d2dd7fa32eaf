"""Small versions of images, by which the audit finds copies of a picture.

They are made where an image is decoded anyway, by the stage `features`, and kept in .graft/cache by the image's id; the
audit decodes only images whose small version is missing there, so no result depends on the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..core.cores import cores
from ..core.paths import Paths
from ..core.progress import progress
from ..core.scratch import scratch_array
from ..images.decode import Picture, pixels_of
from ..images.reading import Reading
from .segments import SEGMENT_SECONDS, FeatureCache, ids_of

SIDE = 16
"""Pixels."""

FORM = 1
"""Raised whenever a change makes another small version of the same image."""


def thumbnail_cache(paths: Paths, reading: Reading, every: float = SEGMENT_SECONDS) -> FeatureCache:
    """Where small versions are kept: (N, SIDE * SIDE * C) in half precision; `every` as for any cache."""
    name = f"{FORM}-channels-{reading.channels}-pillow-{version('pillow')}"
    if reading.span is not None:
        name += "-range-{:g}-{:g}".format(*reading.span)
    return FeatureCache(paths.cache / "thumbnails" / name, SIDE * SIDE * reading.channels, "float16", every)


def thumbnail(picture: Picture) -> npt.NDArray[np.float32]:
    """(SIDE * SIDE * C,), less the mean of each channel: brighter or darker versions are much the same."""
    small = [image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0) for image in picture]
    pixels = pixels_of(small)
    pixels_PC = pixels.reshape(SIDE * SIDE, -1).astype(np.float32)
    return (pixels_PC - pixels_PC.mean(axis=0)).ravel()


def thumbnails_of(
    folder: Path, names: Sequence[str], image_ids: Sequence[str], reading: Reading, paths: Paths, what: str
) -> npt.NDArray[np.float16]:
    """Of each image, (N, SIDE * SIDE * C). Only images without a stored one are decoded.

    Args:
        names: of the files, below `folder`.
        image_ids: the md5 of each file.
        what: the work, for the progress bar.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
    """
    cache, ids = thumbnail_cache(paths, reading), ids_of(list(image_ids))

    def compute(places: npt.NDArray[np.int64]) -> None:
        with cache, ThreadPoolExecutor(cores()) as pool, progress(what, len(places)) as bar:
            small = pool.map(lambda place: thumbnail_of(folder / names[place], image_ids[place], reading), places)
            for place, pixels in zip(places, small, strict=True):
                cache.add(ids[place : place + 1], pixels[None])
                bar.add()
        cache.refresh()

    rows_NV = scratch_array((len(ids), cache.dimension), np.float16, paths.tmp)
    for places, block in cache.read_all(ids, compute):
        rows_NV[places] = block
    return rows_NV


def thumbnail_of(file: Path, image_id: str | None, reading: Reading) -> npt.NDArray[np.float32]:
    """The thumbnail of a file.

    Raises:
        DataError: the file was removed, changed or damaged after it was checked.
    """
    with reading.file(file, image_id) as picture:
        return thumbnail(picture)
