"""From a file to the pixels that a network sees: decoding, and timm's evaluation geometry, with PIL alone.

PIL is the reference that timm itself decodes and resizes with, so that nothing is lost on the way; neither torch nor
timm is imported, so that a packaged model needs neither.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..core.errors import DataError

Pixels = npt.NDArray[np.uint8]
"""uint8, shape (H, W, C); RGB where C is 3."""

Picture = tuple[Image.Image, ...]
"""An upright image of 8 bits: one RGB image for three channels, otherwise a grey image a channel."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

_REACH = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}
"""Half the width of a filter, in pixels of the smaller image."""

_RAW_MODES = ("LA", "RGBA", "RGBX", "CMYK")
"""PIL's modes whose bands may be taken as they are: none is an index into a palette, none multiplied by another."""

_ARRAY = b"\x93NUMPY"
"""How a .npy file begins."""

_INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


class UnreadableImage(ValueError):
    """Bytes that are no image, or end too soon; the cause is what PIL or one of its plugins raised."""


class WrongForm(UnreadableImage):
    """A sound image whose bands are not those that are asked for, or an array that is no image."""


def decode(source: Path | bytes) -> Image.Image:
    """A file's or a byte string's first frame as an upright RGB image of 8 bits.

    EXIF orientation is applied, transparency is composited on `BACKGROUND`, 16-bit grey keeps its high byte (unless no
    value is above 255), and palette, grey and CMYK become RGB as PIL converts them.

    Raises:
        OSError: the file cannot be read.
        UnreadableImage: it is no image, or a damaged one.
        PIL.Image.DecompressionBombError: it has more pixels than PIL takes.
    """
    return decode_bands(source, 3)[0]


def decode_bands(source: Path | bytes, channels: int) -> Picture:
    """A file or a byte string as an image of so many channels.

    For one channel everything becomes grey, for three RGB, as `decode` says. For any other number the bands are taken
    as they are, without mixing or compositing, from PIL's modes of two and four bands or from an array. An array is a
    .npy file of uint8, shape (H, W, C) or (H, W), and must have exactly so many channels.

    Raises:
        OSError: the file cannot be read.
        UnreadableImage: it is no image, or a damaged one; as its child `WrongForm`, one of other bands.
        PIL.Image.DecompressionBombError: it has more pixels than PIL takes.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    if content.startswith(_ARRAY):
        return _array_bands(content, channels)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _bands(image, channels)
    except (WrongForm, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:  # PIL's plugins raise almost anything for damaged bytes
        raise UnreadableImage(str(error) or type(error).__name__) from error


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
    except Exception as error:  # numpy parses the header as Python, and raises whatever that gives
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
    """The values of an RGB image, or of a grey image a channel."""
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


@dataclass(frozen=True)
class EvalTransform:
    """The geometry and normalisation with which a network was trained to be evaluated, as `timm.data` defines it.

    Attributes:
        height, width: the network's input, in pixels.
        crop_pct: the share of the resized image that the crop keeps.
        crop_mode: `center` keeps the aspect and crops, `squash` does not keep it, `border` pads.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`, antialiased when it makes smaller.
        mean, std: of each of the C channels, on a scale from 0 to 1.
    """

    height: int
    width: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalTransform:
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    @property
    def channels(self) -> int:
        return len(self.mean)

    def __call__(self, *picture: Image.Image) -> Pixels:
        """The pixels of the crop, not yet normalised: uint8 of shape (height, width, C).

        Args:
            picture: an RGB image, or a grey one a channel, each of which is resized by itself: PIL would multiply the
                bands of an RGBA image by the last one.
        """
        fill = [round(255 * value) if self.crop_mode == "border" else 0 for value in self.mean]
        if len(picture) == 1:
            return pixels_of([self._crop(picture[0], tuple(fill))])
        return pixels_of([self._crop(band, (value,)) for band, value in zip(picture, fill, strict=True)])

    def _crop(self, image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
        size = self.resized(*image.size)
        if (
            self.crop_mode == "center"
            and self.resampling in _REACH
            and size[0] >= self.width
            and size[1] >= self.height
        ):
            return _resized_crop(image, size, self.width, self.height, self.resampling)
        return _center_crop(image.resize(size, self.resampling), self.width, self.height, fill)

    @property
    def resampling(self) -> Image.Resampling:
        return _INTERPOLATIONS[self.interpolation]

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to which an image of this size is resized before the crop.

        timm's own rounding: the scale is floored, the long side truncated for a square input, rounded for others.
        """
        target_w, target_h = math.floor(self.width / self.crop_pct), math.floor(self.height / self.crop_pct)
        if self.crop_mode == "squash":
            return target_w, target_h
        if self.crop_mode == "center" and target_w == target_h:
            return self._short_side(width, height, target_h)
        pick = max if self.crop_mode == "border" else min
        ratio = pick(height / target_h, width / target_w)
        return round(width / ratio), round(height / ratio)

    @staticmethod
    def _short_side(width: int, height: int, target: int) -> tuple[int, int]:
        if width <= height:
            return target, int(target * height / width)
        return int(target * width / height), target


def _resized_crop(
    image: Image.Image, size: tuple[int, int], width: int, height: int, resampling: Image.Resampling
) -> Image.Image:
    """The centre of `image` resized to `size`, computed without what the crop throws away.

    A resize is two passes with rounding between them, so they are run in PIL's own order. What remains is that PIL
    keeps a box's edges in float32: on 600 sizes the values differed in 0.01 %, by two grey levels at most.
    """
    across = _Span.of((size[0] - width) / 2.0, width, image.width, size[0], _REACH[resampling])
    down = _Span.of((size[1] - height) / 2.0, height, image.height, size[1], _REACH[resampling])
    part = image.crop((across.first, down.first, across.last, down.last))

    def horizontal(part: Image.Image) -> Image.Image:
        return part.resize((width, part.height), resampling, box=(across.start, 0, across.end, part.height))

    def vertical(part: Image.Image) -> Image.Image:
        return part.resize((part.width, height), resampling, box=(0, down.start, part.width, down.end))

    lost_w, lost_h = image.width - size[0], image.height - size[1]
    if _VERTICAL_FIRST and lost_h > max(0, 2 * lost_w):
        return horizontal(vertical(part))
    return vertical(horizontal(part))


@dataclass(frozen=True)
class _Span:
    """Along one side, what a crop needs of the image.

    Attributes:
        first, last: the pixels that take part.
        start, end: the crop's edges, from `first` on.
    """

    first: int
    last: int
    start: float
    end: float

    @classmethod
    def of(cls, offset: float, count: int, length: int, resized: int, reach: int) -> _Span:
        scale, left = length / resized, round(offset)
        margin = reach * max(scale, 1.0) + 1
        first, last = max(0, math.floor(left * scale - margin)), min(length, math.ceil((left + count) * scale + margin))
        return cls(first, last, left * scale - first, (left + count) * scale - first)


def _vertical_pass_comes_first() -> bool:
    """Whether this Pillow resizes vertically first where that throws away more than twice as much (from 13.0 on)."""
    busy = (np.arange(960) * 7919 % 251).astype(np.uint8).reshape(40, 8, 3)
    image, bicubic = Image.fromarray(busy), Image.Resampling.BICUBIC
    return image.resize((6, 9), bicubic).tobytes() == image.resize((8, 9), bicubic).resize((6, 9), bicubic).tobytes()


_VERTICAL_FIRST = _vertical_pass_comes_first()


def _center_crop(image: Image.Image, width: int, height: int, fill: tuple[int, ...]) -> Image.Image:
    if image.width < width or image.height < height:
        padded = Image.new(image.mode, (max(image.width, width), max(image.height, height)), fill)
        padded.paste(image, ((padded.width - image.width) // 2, (padded.height - image.height) // 2))
        image = padded
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def load(path: Path, transform: EvalTransform) -> Pixels:
    """A file as the network sees it: uint8, shape (height, width, C).

    Raises:
        DataError: the file is gone or damaged since the preprocess stage checked it.
    """
    with still_readable(path):
        return transform(*decode_bands(path, transform.channels))


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
            todo="restore the file (`dvc checkout data/raw`) or take it out, then run `dvc repro` again",
        ) from error
