"""From a file to the pixels that a network sees: decoding, and timm's evaluation geometry, with PIL alone.

timm itself decodes and resizes with PIL, so the pixels are the same. Neither torch nor timm is imported, so a packaged
model needs neither.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..core.errors import DataError

Pixels = npt.NDArray[np.uint8]
"""uint8, shape (H, W, C); RGB where C is 3."""


Picture = tuple[Image.Image, ...]
"""An upright image of 8 bits: one RGB image for three channels, otherwise one grey image per channel."""


BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels."""


REACH = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}
"""Half the width of a filter, in pixels of the smaller image."""


_RAW_MODES = ("LA", "RGBA", "RGBX", "CMYK")
"""PIL's modes whose bands are used unchanged: none is an index into a palette or multiplied by another."""


_ARRAY = b"\x93NUMPY"
"""How a .npy file begins."""

FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "MPO", "TGA", "DIB", "DDS", "ICO", "PCX",
    "PSD", "QOI", "SGI",
)  # fmt: skip
"""Image formats that are decoded. PIL knows more: for EPS it starts Ghostscript, which executes the file."""


class UnreadableImage(ValueError):
    """Bytes that are not an image, or are truncated; the cause is the error of PIL or its plugin."""


class WrongForm(UnreadableImage):
    """A valid image with other bands than requested, or an array that is not an image."""


def decode(source: Path | bytes) -> Image.Image:
    """A file's or a byte string's first frame as an upright RGB image of 8 bits.

    EXIF orientation is applied, transparency is composited on `BACKGROUND`, 16-bit grey keeps its high byte (unless no
    value is above 255), and palette, grey and CMYK become RGB as PIL converts them.

    Raises:
        OSError: the file cannot be read.
        UnreadableImage: it is not an image of one of the `FORMATS`, or is damaged.
        PIL.Image.DecompressionBombError: it has more pixels than PIL accepts.
    """
    return decode_bands(source, 3)[0]


def decode_bands(source: Path | bytes, channels: int) -> Picture:
    """A file or a byte string as an image with `channels` channels.

    For one channel everything becomes grey, for three RGB, as in `decode`. For any other number the bands are used
    unchanged, without mixing or compositing, from PIL's modes of two and four bands or from an array. An array is a
    .npy file of uint8, shape (H, W, C) or (H, W), and must have exactly this number of channels.

    Raises:
        OSError: the file cannot be read.
        UnreadableImage: it is not an image, or is damaged; its subclass `WrongForm`: it has other bands.
        PIL.Image.DecompressionBombError: it has more pixels than PIL accepts.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    if content.startswith(_ARRAY):
        return _array_bands(content, channels)
    try:
        with open_image(io.BytesIO(content)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _bands(image, channels)
    except (WrongForm, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:  # PIL's plugins raise almost anything for damaged bytes
        raise UnreadableImage(str(error) or type(error).__name__) from error


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Opens an image of one of the `FORMATS`.

    Raises:
        PIL.UnidentifiedImageError: it is not one.
    """
    return Image.open(source, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those that this build of PIL can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _bands(image: Image.Image, channels: int) -> Picture:
    if channels == 3:
        return (_to_rgb(image),)
    if channels == 1:
        return (_to_grey(image),)
    if image.mode in _RAW_MODES and len(image.getbands()) == channels:
        return image.split()
    raise WrongForm(f"{len(image.getbands())} bands ({image.mode}), needed {channels}")


def is_array(path: Path) -> bool:
    """Whether a file is a .npy array, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(_ARRAY)) == _ARRAY


def _array_bands(content: bytes, channels: int) -> Picture:
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which may raise anything
        raise UnreadableImage(str(error) or type(error).__name__) from error
    if values.ndim == 2:
        values = values[..., None]
    if values.dtype != np.uint8 or values.ndim != 3 or not values.size:
        raise WrongForm(f"array of {values.dtype}, shape {values.shape}, needed uint8 (H, W, C)")
    if values.shape[2] != channels:
        raise WrongForm(f"{values.shape[2]} bands (array), needed {channels}")
    if channels == 3:
        return (Image.fromarray(np.ascontiguousarray(values)),)
    return tuple(Image.fromarray(np.ascontiguousarray(values[..., c])) for c in range(channels))


def pixels_of(picture: Sequence[Image.Image]) -> Pixels:
    """The values of an RGB image, or of one grey image per channel."""
    planes = [np.asarray(image) for image in picture]
    return planes[0] if planes[0].ndim == 3 else np.dstack(planes)


def _to_grey(image: Image.Image) -> Image.Image:
    plain = image.mode == "L" and "transparency" not in image.info
    return image if plain else _to_rgb(image).convert("L")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte; PIL itself would clip everything above 255 to white."""
    values = np.asarray(image, dtype=np.float64)
    if values.max(initial=0) > 255:
        values = values // 256
    return Image.fromarray(values.clip(0, 255).astype(np.uint8), "L").convert("RGB")


@contextmanager
def still_readable(path: Path) -> Iterator[None]:
    """Raises:
    DataError: the block could not read `path`.
    """
    try:
        yield
    except (OSError, UnreadableImage) as error:
        raise DataError(
            f"{path} cannot be read, though it could when it was checked",
            got=str(error),
            todo="restore the file (`dvc checkout data/raw`) or take it out, then run `graft repro` again",
        ) from error
