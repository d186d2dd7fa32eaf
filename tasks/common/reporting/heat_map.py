"""Heat maps: anomaly scores over the picture, coloured in units of the threshold.

So the same colour means the same on every picture: without colour a part is far below the threshold, yellow it is near
it, orange to dark red above it. A line goes round what is above. H x W pixels of the picture.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..images.decode import Picture, Pixels

LONGEST = 1024
"""Pixels of the longer side of a heat map; larger pictures are made smaller."""

RATIO = (0.75, 1.0, 1.5, 2.0)
"""Scores in units of the threshold, where the colours below are taken; between them they are mixed."""

COLOURS = ((255, 237, 160), (254, 178, 76), (227, 26, 28), (110, 0, 40))

OPACITY = (0.0, 0.45, 0.6, 0.7)

STEPS = 1024
"""As many colours are told apart."""

LINE = (70, 0, 25)

LINES_PER_SIDE = 250
"""A line is as wide as this part of the shorter side."""


def overlay(picture_HW3: Pixels, map_hw: npt.NDArray[Any], threshold: float) -> Pixels:
    """The picture in grey under its scores, uint8 (H, W, 3).

    Args:
        picture_HW3: uint8 RGB.
        map_hw: scores of any resolution over the whole picture; not finite ones count as 0.
        threshold: the score above which an image is anomalous.
    """
    ratio_HW = enlarged(map_hw, picture_HW3.shape[1], picture_HW3.shape[0]) / max(threshold, 1e-12)
    step_HW = np.clip(ratio_HW * (STEPS / RATIO[-1]), 0, STEPS).astype(np.int16)
    colour_S3, left_S = _table()
    grey_HW = picture_HW3.mean(axis=2, dtype=np.float32)
    found_HW3 = colour_S3[step_HW]
    found_HW3 += (left_S[step_HW] * grey_HW)[..., None]
    found_HW3 = found_HW3.round().astype(np.uint8)
    found_HW3[_outline(ratio_HW >= 1)] = LINE
    return found_HW3


@cache
def _table() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """For each of S steps of the ratio, from 0 to the last of `RATIO`: what the map adds to each band, (S, 3), and what
    share of the picture is left, (S,)."""
    ratio_S = np.linspace(0, RATIO[-1], STEPS + 1)
    share_S = np.interp(ratio_S, RATIO, OPACITY)
    colour_S3 = np.stack([np.interp(ratio_S, RATIO, band) for band in zip(*COLOURS, strict=True)], axis=1)
    return (share_S[:, None] * colour_S3).astype(np.float32), (1 - share_S).astype(np.float32)


def enlarged(map_hw: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.float32]:
    """The map with as many pixels as the picture has, (height, width), bilinear."""
    finite_hw = np.nan_to_num(np.asarray(map_hw, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    image = Image.fromarray(finite_hw).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def _outline(inside_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The rim of a region, inside of it; none along the edges of the picture."""
    width = max(1, min(inside_HW.shape) // LINES_PER_SIDE)
    padded = np.pad(inside_HW, width, mode="edge")
    shifts = ((0, width), (2 * width, width), (width, 0), (width, 2 * width))
    height, across = inside_HW.shape
    deep_HW = np.logical_and.reduce([padded[top : top + height, left : left + across] for top, left in shifts])
    return inside_HW & ~deep_HW


def shown(picture: Picture, longest: int = LONGEST) -> Pixels:
    """A picture as people see it, uint8 RGB (H, W, 3), its longer side at most `longest` pixels; of separate bands the
    first three as red, green and blue, or the first one as grey."""
    image = Image.merge("RGB", picture[:3]) if len(picture) >= 3 else picture[0].convert("RGB")
    scale = longest / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
