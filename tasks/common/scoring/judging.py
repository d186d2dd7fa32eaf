"""Decoded images against their targets. N images, B of a block, T thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ..core.progress import progress
from ..data.feature_set import Rows
from ..heads.base import Single
from ..heads.decoder import DecoderHead
from ..maps.maps import Maps
from ..maps.targets import Targets
from .images import OVERLAP, dice, overlap, psnr, ssim
from .pixel_threshold import PixelThreshold, best_threshold, counted

BLOCK = 16
"""Images that are decoded at a time."""

THRESHOLDS = np.arange(1, 20) / 20
"""That a threshold for marked pixels is chosen among."""


@dataclass(frozen=True)
class Judge:
    """Compares what a decoder gives with the targets: masks in the size of the image, images in the size in which the
    network sees them."""

    head: DecoderHead
    maps: Maps
    targets: Targets

    def table(self, rows: Rows, what: str) -> pd.DataFrame:
        """A row for each image, in the order of `rows`: `value` (the head's output), and `psnr` and `ssim`, or the
        columns of `OVERLAP`."""
        found: list[dict[str, float]] = [{}] * len(rows)

        def note(place: int, decoded_CHW: Single) -> None:
            value = float(self.head.values(decoded_CHW[None])[0])
            found[place] = {"value": value, **self.one(int(rows[place]), decoded_CHW)}

        self._each(rows, what, note)
        return pd.DataFrame(found)

    def one(self, row: int, decoded_CHW: Single) -> dict[str, float]:
        """Of one image."""
        if self.targets.kind == "mask":
            marked = self.marked(row)
            counts = overlap(resized(decoded_CHW[0], marked.shape) >= self.head.threshold, marked)
            return dict(zip(OVERLAP, counts, strict=True))
        target_CHW = self.targets.read(row) / 255
        return {"psnr": psnr(decoded_CHW, target_CHW), "ssim": ssim(decoded_CHW, target_CHW)}

    def marked(self, row: int) -> npt.NDArray[np.bool_]:
        """The pixels of an image that its mask marks; none without a mask."""
        found = self.targets.marked(row)
        return np.zeros(self.targets.grey(row).shape, np.bool_) if found is None else found

    def best_threshold(self, rows: Rows) -> float:
        """From which value on a pixel is marked: the one of `THRESHOLDS` with the largest Dice on these images."""
        counts_T3 = np.zeros((len(THRESHOLDS), 3))

        def note(place: int, decoded_CHW: Single) -> None:
            marked = self.marked(int(rows[place]))
            p_HW = resized(decoded_CHW[0], marked.shape)
            counts_T3[:] += [overlap(p_HW >= threshold, marked) for threshold in THRESHOLDS]

        self._each(rows, "head: choosing the threshold", note)
        dice_T = np.nan_to_num(dice(counts_T3))
        return float(THRESHOLDS[dice_T == dice_T.max()].mean()) if dice_T.any() else 0.5

    def decoded(self, row: int) -> Single:
        """Of one image, (C, H, W)."""
        return self.head.images(self.maps.read(np.array([row])))[0]

    def _each(self, rows: Rows, what: str, note: Callable[[int, Single], Any]) -> None:
        with progress(what, len(rows)) as bar:
            for places, maps_BD in self.maps.blocks(rows, BLOCK):
                for place, decoded_CHW in zip(places.tolist(), self.head.images(maps_BD), strict=True):
                    note(place, decoded_CHW)
                bar.add(len(places))


def resized(p_HW: Single, size: tuple[int, ...]) -> Single:
    """Bilinear, to (h, w)."""
    if p_HW.shape == size:
        return p_HW
    image = Image.fromarray(np.ascontiguousarray(p_HW))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def pixel_threshold(targets: Targets, rows: Rows) -> PixelThreshold:
    """The threshold of grey values with the largest Dice on these images: what a decoder must be better than."""
    counts_2G = np.zeros((2, 256), np.int64)
    with progress("head: choosing a threshold of grey values", len(rows)) as bar:
        for row in rows.tolist():
            grey, marked = targets.grey(row), targets.marked(row)
            counts_2G += counted(grey, np.zeros(grey.shape, np.bool_) if marked is None else marked)
            bar.add(1)
    return best_threshold(counts_2G)


def threshold_table(targets: Targets, rows: Rows, threshold: PixelThreshold) -> pd.DataFrame:
    """The columns of `OVERLAP` that the threshold of grey values gives."""
    found = []
    for row in rows.tolist():
        grey, marked = targets.grey(row), targets.marked(row)
        found.append(overlap(threshold.marked(grey), np.zeros(grey.shape, np.bool_) if marked is None else marked))
    return pd.DataFrame(found, columns=list(OVERLAP))
