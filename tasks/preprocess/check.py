"""Whether a file is a usable image: every pixel is decoded once, and every rejection has a reason."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..common.images.decode import Picture, UnreadableImage, WrongForm, decode_bands, is_array, open_image

FEW_COLOURS = 64
"""A drawn placeholder has few colours; a photograph saved with a palette uses most of its 256."""

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
    """

    fault: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    pixels: str = ""
    blank: bool = False
    colours: int = 0
    largest_share: float = 0.0


def look(path: Path, channels: int = 3) -> Look:
    """Decodes a whole file as an image with `channels` channels.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_size == 0:
        return Look("empty file")
    try:
        upright = decode_bands(path, channels)
    except WrongForm as error:
        return Look(f"{WRONG_FORM}: {error}")
    except UnreadableImage as error:
        return Look("not an image" if isinstance(error.__cause__, UnidentifiedImageError) else f"damaged: {error}")
    except Image.DecompressionBombError as error:
        return Look(f"too large: {error}")
    mode, shares = _mode_and_shares(path)
    width, height = upright[0].size
    return Look(
        "", width, height, mode, _pixel_hash(upright), _is_blank(upright), len(shares), max(shares, default=0.0)
    )


def judge(seen: Look, min_side: int, placeholder_share: float) -> str:
    """Why an image is not usable; empty if it is."""
    if seen.fault:
        return seen.fault
    if min(seen.width, seen.height) < min_side:
        return f"too small: {seen.width} x {seen.height} px, the shorter side needs {min_side}"
    if seen.blank:
        return "blank: every pixel has the same colour"
    if 0 < seen.colours <= FEW_COLOURS and seen.largest_share >= placeholder_share:
        return f"placeholder: one of its {seen.colours} colours covers {seen.largest_share:.0%} of the picture"
    return ""


def _mode_and_shares(path: Path) -> tuple[str, list[float]]:
    if is_array(path):
        return "array", []
    with open_image(path) as image:
        return image.mode, _palette_shares(image)


def _is_blank(picture: Picture) -> bool:
    extrema = [image.getextrema() for image in picture]
    pairs = extrema[0] if picture[0].mode == "RGB" else extrema
    return all(low == high for low, high in pairs)  # type: ignore[misc]


def _palette_shares(image: Image.Image) -> list[float]:
    """The shares of a palette image's colours; empty for other images."""
    if image.mode != "P":
        return []
    counts = np.bincount(np.asarray(image).ravel(), minlength=1)
    return (counts[counts > 0] / counts.sum()).tolist()


def _pixel_hash(picture: Picture) -> str:
    width, height = picture[0].size
    digest = hashlib.blake2b(f"{width}x{height}".encode(), digest_size=16)
    for image in picture:
        digest.update(image.tobytes())
    return digest.hexdigest()
