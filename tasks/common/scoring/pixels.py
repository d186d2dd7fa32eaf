"""How well score maps find the pixels of defects, over any number of images in bounded memory.

Pixel AUROC is the chance that a pixel of a defect has a higher score than a pixel without. AU-PRO is the area under the
per-region overlap (Bergmann et al. 2019): of every connected region of defect pixels, the share whose score is above a
threshold, averaged over the regions of all images, against the share of pixels without a defect above it; integrated up
to a share of `LIMIT` and divided by that. So a defect counts the same whatever its size.

Both are areas under a curve of ranked pixels; for AU-PRO a pixel of a region of n weighs 1 / n. The pixels are counted
in a histogram of their scores. Its bins are the float32 numbers with the last bits cut off, so that no range must be
known before; what the unknown order within the bins can change at most is stated.

H x W pixels, B bins, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LIMIT = 0.3
"""The share of pixels without a defect up to which AU-PRO is integrated (Bergmann et al. 2019)."""

CUT = 12
"""Bits that are cut off a float32: scores in one bin differ by less than one part in 2,048."""

BINS = 2 ** (32 - CUT)

WHOLE = 2**40
"""The weight of a region, shared among its pixels in whole numbers, so that the order of the images has no effect."""

NEIGHBOURS = np.ones((3, 3), np.int64)
"""Pixels that touch at a corner belong to one region."""


@dataclass(frozen=True)
class Area:
    """An area under a curve, and by how much it may be wrong at most, because of the bins."""

    value: float
    error: float


class PixelRanking:
    """The pixels of any number of images by score.

    Attributes:
        images, regions: how many have been added.
    """

    def __init__(self) -> None:
        self._normal_B = np.zeros(BINS, np.int64)
        self._defect_B = np.zeros(BINS, np.int64)
        self._region_B = np.zeros(BINS, np.int64)
        self.images = self.regions = 0

    def add(self, score_HW: Singles, defect_HW: Bools) -> None:
        """Counts the pixels of one image."""
        bin_HW = _bins(score_HW)
        weight_M, regions = _region_weights(defect_HW)
        _count(self._normal_B, bin_HW[~defect_HW])
        _count(self._defect_B, bin_HW[defect_HW])
        _count(self._region_B, bin_HW[defect_HW], weight_M)
        self.regions += regions
        self.images += 1

    def auroc(self) -> Area | None:
        """None without both kinds of pixels; ties count one half."""
        return _area(self._normal_B, self._defect_B, 1.0)

    def au_pro(self, limit: float = LIMIT) -> Area | None:
        """None without both kinds of pixels."""
        return _area(self._normal_B, self._region_B, limit)


def _bins(score_HW: Singles) -> Ints:
    """The bin of each score, in the order of the scores: the bits of positive floats are in it, those of negative ones
    in the opposite."""
    bits_HW = (np.ascontiguousarray(score_HW, np.float32) + np.float32(0)).view(np.uint32)  # -0 is 0
    flip_HW = np.where(bits_HW >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return ((bits_HW ^ flip_HW) >> CUT).astype(np.int64)


def _region_weights(defect_HW: Bools) -> tuple[Floats, int]:
    """(the weight of each of M defect pixels; the number of regions)."""
    from scipy.ndimage import label

    region_HW, regions = label(defect_HW, NEIGHBOURS)
    region_M = region_HW[defect_HW]
    return np.round(WHOLE / np.bincount(region_M, minlength=1)[region_M]), int(regions)


def _count(counts_B: Ints, bin_M: Ints, weight_M: Floats | None = None) -> None:
    if len(bin_M):
        first = int(bin_M.min())
        found = np.bincount(bin_M - first, weight_M).astype(np.int64)
        counts_B[first : first + len(found)] += found


def _area(normal_B: Ints, defect_B: Ints, limit: float) -> Area | None:
    """Under the share of the defects by the share of the pixels without one, the highest scores first, up to `limit`,
    divided by it."""
    if not normal_B.any() or not defect_B.any():
        return None
    used = np.flatnonzero((normal_B > 0) | (defect_B > 0))[::-1]
    false_B, found_B = (each[used] / each.sum() for each in (normal_B, defect_B))
    before_B = np.cumsum(false_B) - false_B
    inside_B = np.clip(limit - before_B, 0, false_B)
    part_B = np.divide(inside_B, false_B, out=np.zeros(len(used)), where=false_B > 0)  # of a bin that `limit` cuts
    reached_B = np.cumsum(found_B) - found_B + found_B * part_B / 2
    unsure_B = inside_B * found_B * np.where(part_B < 1, 1.0, 0.5)
    return Area(min(float(inside_B @ reached_B) / limit, 1.0), float(unsure_B.sum()) / limit)
