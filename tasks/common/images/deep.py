"""Grey images of more than 8 bits, and of floats: one mapping to 8 bits for all images of a data set.

If each image were stretched by itself, the darker of two could come out brighter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .strips import strips
from .unreadable import WrongForm

Range = tuple[float, float]
"""The values that become 0 and 255; values outside are clipped."""

INTEGERS: Range = (0, 65535)
"""The range of 16-bit images when nothing else is known: of each value the high byte is kept, as for RGB."""

NOMINAL: tuple[Range, ...] = ((0, 1), (-1, 1), (0, 255), (0, 1023), (0, 4095), (0, 16383), (0, 65535))
"""Ranges that cameras, scanners and programs use. A data set has the first that holds all its values, so that a new
image seldom changes it."""


TABLE = 2**17
"""The integers that make up a table."""


def is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def extremes(image: Image.Image) -> Range:
    """The least and the largest value that is a finite number; (nan, nan) if there is none."""
    found = []
    for _, part in strips(image):
        values = np.asarray(part)
        finite = values[np.isfinite(values)]
        if finite.size:
            found.append((float(finite.min()), float(finite.max())))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else (math.nan, math.nan)


def nominal(low: float, high: float, integers: bool) -> Range:
    """The range of a data set with these extremes: one of `NOMINAL`, or the extremes themselves."""
    usual = NOMINAL[2:] if integers else NOMINAL
    return next((one for one in usual if one[0] <= low and high <= one[1]), (low, high))


def to_grey(image: Image.Image, span: Range | None) -> Image.Image:
    """In 8 bits.

    Args:
        span: the range of the data set; None if it has no such images, then `INTEGERS` is taken.

    Raises:
        WrongForm: without a range, floats could mean anything.
    """
    if span is None and image.mode == "F":
        raise WrongForm("an image of floats, and `preprocess.range` does not say which values are black and white")
    low, high = span or INTEGERS
    grey = Image.new("L", image.size)
    for top, part in strips(image):
        grey.paste(Image.fromarray(_mapped(np.asarray(part), low, high)), (0, top))
    return grey


def _mapped(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """As `_steps` says; integers of a usual range are looked up, which takes a fraction of the time."""
    first, last = math.floor(low), math.ceil(high) + 1  # what lies outside becomes black or white
    if values.dtype.kind == "f" or last - first > TABLE or max(-first, last) > 2**31:
        return _steps(values, low, high)
    table = _steps(np.arange(first, last + 1), low, high)
    places: npt.NDArray[np.int64] = np.clip(values.astype(np.int64), first, last) - first
    return table[places]


def _steps(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Integers in 256 equal steps, so that 0 to 65535 keeps the high byte and 0 to 255 every value; floats rounded."""
    if values.dtype.kind != "f":
        steps = (values.astype(np.float64) - low) * 256 // (high - low + 1)
    else:
        within = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high)
        steps = np.rint((within - low) / max(high - low, 1e-300) * 255)
    return np.clip(steps, 0, 255).astype(np.uint8)
