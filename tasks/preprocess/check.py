"""Whether a file is a usable image: every pixel is decoded once, and every rejection has a reason."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from ..common.images.decode import Decoded, Picture
from ..common.images.deep import INTEGERS, extremes, is_deep
from ..common.images.limits import Limits
from ..common.images.reading import content_of, decoding
from ..common.images.strips import strips
from ..common.images.unreadable import Refused, UnreadableImage, WrongForm

FEW_COLOURS = 64
"""A drawn placeholder has few colours; a photograph saved with a palette uses most of its 256."""

SPREAD = 0.5
"""A drawn placeholder leaves more than half of its 8 x 8 parts empty; a page of text has letters nearly everywhere."""

TWO_BYTES = 16384
"""A grey image with values from here on uses its 16 bits; one of 10, 12 or 14 bits has few values of the high byte."""

WRONG_FORM = "wrong form"
"""Beginning of the reason for images with other bands than `preprocess.channels`."""


@dataclass(frozen=True)
class Look:
    """What a file contains; depends only on its bytes and the number of channels, not on other parameters.

    Attributes:
        fault: why it is not an image; empty if it is one.
        width, height: in pixels, upright.
        mode: PIL's mode of the file; `array` for a .npy file.
        pixels: a hash of size and values.
        blank: whether every pixel has the same colour.
        colours: number of colours of a palette image; 0 for others.
        largest_share: share of the pixels with the palette's most frequent colour.
        spread: share of the 8 x 8 parts of a palette image that have another colour too.
        low, high: the least and the largest value of a grey image of more than 8 bits; None for others.
    """

    fault: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    pixels: str = ""
    blank: bool = False
    colours: int = 0
    largest_share: float = 0.0
    spread: float = 0.0
    low: float | None = None
    high: float | None = None


def look(path: Path, channels: int = 3, limits: Limits | None = None, image_id: str | None = None) -> Look:
    """Decodes a whole file as an image with `channels` channels.

    Args:
        image_id: the md5 that the file is listed with, if it is known.

    Raises:
        OSError: it cannot be read.
        Refused: it exceeds a limit, or needs a library that is not installed.
        DataError: it has another md5.
    """
    limits = limits or Limits()
    with content_of(path, limits, image_id) as content:
        return _seen(content, channels, limits) if content else Look("empty file")


def _seen(content: bytes, channels: int, limits: Limits) -> Look:
    try:
        with decoding(content, channels, limits) as decoded:
            return _look(decoded, channels)
    except WrongForm as error:
        return Look(f"{WRONG_FORM}: {error}")
    except Refused:
        raise
    except UnreadableImage as error:
        return Look("not an image" if isinstance(error.__cause__, UnidentifiedImageError) else f"damaged: {error}")


def _look(decoded: Decoded, channels: int) -> Look:
    width, height = decoded.picture[0].size
    palette, low, high, blank = decoded.palette, None, None, _is_blank(decoded.picture)
    if decoded.deep is not None:
        low, high = extremes(decoded.deep)
        blank = low == high
        if math.isnan(low):
            return Look("damaged: no value is a finite number")
    return Look(
        width=width,
        height=height,
        mode=decoded.mode,
        pixels=_pixel_hash(decoded, channels, high),
        blank=blank,
        colours=palette.colours if palette else 0,
        largest_share=palette.largest_share if palette else 0.0,
        spread=palette.spread if palette else 0.0,
        low=low,
        high=high,
    )


def judge(seen: Look, min_side: int, placeholder_share: float, limits: Limits | None = None) -> str:
    """Why an image is not usable; empty if it is."""
    reason = seen.fault or (limits or Limits()).refusal(seen.width, seen.height)
    if reason:
        return reason
    if min(seen.width, seen.height) < min_side:
        return f"too small: {seen.width} x {seen.height} px, the shorter side needs {min_side}"
    if seen.blank:
        return "blank: every pixel has the same colour"
    if 0 < seen.colours <= FEW_COLOURS and seen.largest_share >= placeholder_share and seen.spread < SPREAD:
        return f"placeholder: one of its {seen.colours} colours covers {seen.largest_share:.0%} of the picture"
    return ""


def _is_blank(picture: Picture) -> bool:
    extrema = [image.getextrema() for image in picture]
    pairs = extrema[0] if picture[0].mode == "RGB" else extrema
    return all(low == high for low, high in pairs)  # type: ignore[misc]


def _pixel_hash(decoded: Decoded, channels: int, high: float | None) -> str:
    """Of the image in 8 bits, which a copy in another format has too; of the values themselves if 8 bits without a
    range would lose most of them."""
    values = decoded.picture
    if decoded.deep is not None and high is not None:
        lossy = decoded.mode == "F" or 255 < high < TWO_BYTES
        values = values if lossy else decoded.eight_bits(channels, (0, 255) if high <= 255 else INTEGERS)
    width, height = values[0].size
    digest = hashlib.blake2b(f"{width}x{height}".encode(), digest_size=16)
    for image in values:
        for _, part in strips(image):
            digest.update(np.asarray(part).astype("<f8").tobytes() if is_deep(image) else part.tobytes())
    return digest.hexdigest()
