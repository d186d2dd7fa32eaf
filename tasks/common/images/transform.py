"""The evaluation transform of a backbone: resize and crop as timm does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from .decode import REACH, Pixels, pixels_of
from .reading import Reading

_INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

HUGE = 1 << 25
"""Pixels of a resized image from which on every filter computes the crop alone: an image of 16 x 2,000,000 would be
resized to 224 x 28,000,000. Below, `bilinear` and `nearest` resize the whole image, as timm does."""

Crop = Literal["auto", "center", "squash", "border"]
"""What a network is shown of an image; `auto` as its weights are tested."""


@dataclass(frozen=True)
class EvalTransform:
    """The geometry and normalisation with which a network was trained to be evaluated, as `timm.data` defines it.

    Attributes:
        height, width: the network's input, in pixels.
        crop_pct: the share of the resized image that the crop keeps.
        crop_mode: `center` keeps the aspect and crops, `squash` does not keep it, `border` pads with the mean colour.
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

    def showing(self, crop: Crop) -> EvalTransform:
        """With another crop mode. `squash` and `border` are chosen to see everything, so they keep all of the resized
        image, whatever share of it the network's own crop keeps."""
        if crop == "auto":
            return self
        return replace(self, crop_mode=crop, crop_pct=self.crop_pct if crop == "center" else 1.0)

    def seen(self, width: int, height: int) -> float:
        """The share of the area of an image of this size that lies inside the crop, above 0, at most 1."""
        resized_w, resized_h = self.resized(width, height)
        return min(self.width / resized_w, 1.0) * min(self.height / resized_h, 1.0)

    def area(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the crop, as shares of the sides of an image of this size: 0 and 1 are its
        edges, and the bars of `border` lie outside of them."""
        resized_w, resized_h = self.resized(width, height)
        left, top = _offset(resized_w, self.width), _offset(resized_h, self.height)
        return left / resized_w, top / resized_h, (left + self.width) / resized_w, (top + self.height) / resized_h

    def __call__(self, *picture: Image.Image) -> Pixels:
        """The pixels of the crop, not yet normalised: uint8 of shape (height, width, C).

        Args:
            picture: an RGB image, or one grey image per channel, which are resized separately: PIL would multiply the
                bands of an RGBA image by the last one.
        """
        return pixels_of([self._crop(image, fill) for image, fill in self._filled(picture)])

    def whole(self, *picture: Image.Image) -> Pixels:
        """The image that the crop is taken from, uint8 of shape (h, w, C): resized, and padded as far as `border` pads;
        training takes random crops from it."""
        images = [
            (image.resize(self.resized(*image.size), self.resampling), fill) for image, fill in self._filled(picture)
        ]
        if self.crop_mode == "border":
            return pixels_of([_padded(image, self.width, self.height, fill) for image, fill in images])
        return pixels_of([image for image, _ in images])

    def _filled(self, picture: Sequence[Image.Image]) -> list[tuple[Image.Image, tuple[int, ...]]]:
        """Each image with the colour of what lies outside of it."""
        fill = tuple(round(255 * value) if self.crop_mode == "border" else 0 for value in self.mean)
        return (
            [(picture[0], fill)] if len(picture) == 1 else [(band, (f,)) for band, f in zip(picture, fill, strict=True)]
        )

    def _crop(self, image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
        size = self.resized(*image.size)
        in_reach = self.resampling in REACH or size[0] * size[1] > HUGE
        if self.crop_mode == "center" and in_reach and size[0] >= self.width and size[1] >= self.height:
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
        return max(1, round(width / ratio)), max(1, round(height / ratio))

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
    across = _Span.of((size[0] - width) / 2.0, width, image.width, size[0], REACH.get(resampling, 1))
    down = _Span.of((size[1] - height) / 2.0, height, image.height, size[1], REACH.get(resampling, 1))
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
    image = _padded(image, width, height, fill)
    left, top = _offset(image.width, width), _offset(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _offset(length: int, kept: int) -> int:
    """Where the middle begins of a side, or, if it is shorter than `kept`, of the side with its bars (then below 0)."""
    return round((length - kept) / 2.0) if length >= kept else -((kept - length) // 2)


def _padded(image: Image.Image, width: int, height: int, fill: tuple[int, ...]) -> Image.Image:
    """In the middle of an image of at least this size."""
    if image.width >= width and image.height >= height:
        return image
    padded = Image.new(image.mode, (max(image.width, width), max(image.height, height)), fill)
    padded.paste(image, ((padded.width - image.width) // 2, (padded.height - image.height) // 2))
    return padded


def load(path: Path, image_id: str | None, transform: EvalTransform, reading: Reading) -> Pixels:
    """A file as the network sees it: uint8, shape (height, width, C).

    Args:
        image_id: the md5 that the file has in the manifest; None if it is in none.

    Raises:
        DataError: the file has been removed, changed or damaged since the preprocess stage checked it.
    """
    with reading.file(path, image_id) as picture:
        return transform(*picture)
