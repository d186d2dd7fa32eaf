"""The simplest segmentation: a pixel is marked if it is darker, or brighter, than one grey value.

G = 256 grey values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .images import dice

Counts = npt.NDArray[np.int64]
"""(2, G): the pixels of each grey value that are not marked, and those that are."""


@dataclass(frozen=True)
class PixelThreshold:
    """Attributes:
    grey: of the last pixels that are marked.
    darker: whether darker pixels are marked, or brighter ones.
    dice: on the images that chose it.
    """

    grey: int
    darker: bool
    dice: float

    def marked(self, grey_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        return grey_HW <= self.grey if self.darker else grey_HW >= self.grey


def counted(grey_HW: npt.NDArray[np.uint8], marked_HW: npt.NDArray[np.bool_]) -> Counts:
    """The counts of one image."""
    values = grey_HW.astype(np.int64) + 256 * marked_HW
    return np.bincount(values.ravel(), minlength=512).reshape(2, 256)


def best_threshold(counts_2G: Counts) -> PixelThreshold:
    """The one with the largest Dice over all counted pixels."""
    tried = []
    for darker in (True, False):
        ordered_2G = counts_2G if darker else counts_2G[:, ::-1]
        found_2G = ordered_2G.cumsum(axis=1)
        counts_G3 = np.stack([found_2G[1], found_2G.sum(axis=0), np.full(256, counts_2G[1].sum())], axis=1)
        dice_G = np.nan_to_num(dice(counts_G3.astype(np.float64)))
        place = int(dice_G.argmax())
        tried.append(PixelThreshold(place if darker else 255 - place, darker, float(dice_G[place])))
    return max(tried, key=lambda one: one.dice)
