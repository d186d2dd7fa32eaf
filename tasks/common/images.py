"""From a file to the pixels that a network sees: decoding, and timm's evaluation geometry, with PIL alone.

PIL is the reference that timm itself decodes and resizes with, so that nothing is lost on the way; neither torch nor
timm is imported, so that a packaged model needs neither.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .errors import DataError

Pixels = npt.NDArray[np.uint8]
"""uint8, shape (H, W, 3), RGB."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

_INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


class UnreadableImage(ValueError):
    """Bytes that are no image, or end too soon; the cause is what PIL or one of its plugins raised."""


def decode(source: Path | bytes) -> Image.Image:
    """A file's or a byte string's first frame as an upright RGB image of 8 bits.

    EXIF orientation is applied, transparency is composited on `BACKGROUND`, 16-bit grey keeps its high byte, and
    palette, grey and CMYK become RGB as PIL converts them.

    Raises:
        OSError: the file cannot be read.
        UnreadableImage: it is no image, or a damaged one.
        PIL.Image.DecompressionBombError: it has more pixels than PIL takes.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:  # PIL's plugins raise almost anything for damaged bytes
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return image.convert("RGB")


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
        mean, std: of the channels, on a scale from 0 to 1.
    """

    height: int
    width: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalTransform:
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def __call__(self, image: Image.Image) -> Pixels:
        """The pixels of the crop, not yet normalised: uint8 of shape (height, width, 3)."""
        resized = image.resize(self.resized(*image.size), self.resampling)
        fill = tuple(round(255 * value) for value in self.mean) if self.crop_mode == "border" else (0, 0, 0)
        return np.asarray(_center_crop(resized, self.width, self.height, fill))

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


def _center_crop(image: Image.Image, width: int, height: int, fill: tuple[int, ...]) -> Image.Image:
    if image.width < width or image.height < height:
        padded = Image.new("RGB", (max(image.width, width), max(image.height, height)), fill)
        padded.paste(image, ((padded.width - image.width) // 2, (padded.height - image.height) // 2))
        image = padded
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def load(path: Path, transform: EvalTransform) -> Pixels:
    """A file as the network sees it: uint8, shape (height, width, 3).

    Raises:
        DataError: the file is gone or damaged since the preprocess stage checked it.
    """
    try:
        return transform(decode(path))
    except (OSError, UnreadableImage) as error:
        raise DataError(
            f"{path} cannot be read, though it could when it was checked",
            got=str(error),
            todo="restore the file (`dvc checkout data/raw`) or take it out, then run `dvc repro` again",
        ) from error
