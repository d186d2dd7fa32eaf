"""Small versions of images, by which the audit finds copies of a picture.

They are made where an image is decoded anyway, by the stage `features`, and kept in .graft/cache by the image's id; the
audit decodes only images whose small version is missing there, so no result depends on the cache.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..core.paths import Paths
from ..images.decode import Picture, pixels_of
from ..images.reading import Reading
from .segments import FeatureCache

SIDE = 16
"""Pixels."""

FORM = 1
"""Raised whenever a change makes another small version of the same image."""


def thumbnail_cache(paths: Paths, reading: Reading) -> FeatureCache:
    """Where small versions are kept: (N, SIDE * SIDE * C) in half precision."""
    name = f"{FORM}-channels-{reading.channels}-pillow-{version('pillow')}"
    if reading.span is not None:
        name += "-range-{:g}-{:g}".format(*reading.span)
    return FeatureCache(paths.cache / "thumbnails" / name, SIDE * SIDE * reading.channels, "float16")


def thumbnail(picture: Picture) -> npt.NDArray[np.float32]:
    """(SIDE * SIDE * C,), less the mean of each channel: brighter or darker versions are much the same."""
    small = [image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0) for image in picture]
    pixels = pixels_of(small)
    pixels_PC = pixels.reshape(SIDE * SIDE, -1).astype(np.float32)
    return (pixels_PC - pixels_PC.mean(axis=0)).ravel()
