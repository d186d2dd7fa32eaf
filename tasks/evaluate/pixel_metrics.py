"""How well heat maps find the pixels of defects: those of the images with a mask, and of all good images.

H x W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.paths import Paths
from ..common.data.task import GOOD
from ..common.images.masks import read_mask
from ..common.images.reading import Reading
from ..common.scoring.pixels import LIMIT, PixelRanking

Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

LARGEST = 2**22
"""Pixels: a larger picture is judged at a whole fraction of its size; what a defect touches there is defect."""


class Pixels:
    """The pixels of test images, one image at a time.

    Args:
        index: columns `path`, `image_id`, `label` and `mask` of the test images.
    """

    def __init__(self, index: pd.DataFrame, reading: Reading, paths: Paths) -> None:
        self._index, self._reading, self._paths = index, reading, paths
        has_mask = index["mask"].notna()
        self._ranking = PixelRanking()
        self._counted = (has_mask | (index["label"] == GOOD)).to_numpy(np.bool_)
        self._masks = int((has_mask & (index["label"] != GOOD)).sum())

    @property
    def wanted(self) -> bool:
        """Whether any defect has a mask."""
        return self._masks > 0

    def add(self, place: int, heat: Callable[[tuple[int, int]], Singles]) -> None:
        """Counts an image; one with a defect and without a mask does not count.

        Args:
            heat: (H, W) -> the heat map of this size.
        """
        if self.wanted and self._counted[place]:
            mask_HW = shrunk(self._mask(place))
            self._ranking.add(heat((mask_HW.shape[0], mask_HW.shape[1])), mask_HW)

    def _mask(self, place: int) -> Bools:
        row = self._index.iloc[place]
        if row["label"] != GOOD:
            return read_mask(self._paths.raw / row["mask"], self._reading.limits)
        with self._reading.file(self._paths.raw / row["path"], row["image_id"]) as picture:
            width, height = picture[0].size
        return np.zeros((height, width), np.bool_)

    def metrics(self) -> dict[str, Any]:
        """Pixel AUROC and AU-PRO, and by how much the histogram may shift them at most; empty without a mask."""
        auroc, au_pro = self._ranking.auroc(), self._ranking.au_pro()
        if auroc is None or au_pro is None:
            return {}
        return {
            "pixel_auroc": auroc.value,
            "au_pro": au_pro.value,
            "pixels": {
                "masks": self._masks,
                "regions": self._ranking.regions,
                "au_pro_limit": LIMIT,
                "pixel_auroc_error": auroc.error,
                "au_pro_error": au_pro.error,
            },
        }


def shrunk(mask_HW: Bools) -> Bools:
    """The mask with at most `LARGEST` pixels."""
    height, width = mask_HW.shape
    step = 1
    while -(-height // step) * -(-width // step) > LARGEST:
        step += 1
    padded = np.pad(mask_HW, ((0, -height % step), (0, -width % step)))
    tall, wide = padded.shape
    return np.asarray(padded.reshape(tall // step, step, wide // step, step).any(axis=(1, 3)))
