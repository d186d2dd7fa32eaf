"""The section `preprocess` of params.yaml."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..common.core.sections import Section
from ..common.images.limits import Limits


class PreprocessParams(Section):
    """Which images are used, and how they are split."""

    val_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the images for validation, if the data have no split of their own."""

    test_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the images for the test, if the data have no split of their own."""

    seed: int = 0
    """Another seed gives another split."""

    channels: int = Field(3, ge=1)
    """Channels that images are read with: 1 is grey, 3 is RGB; any other number uses the bands of images (4: RGBA,
    CMYK) and .npy arrays unchanged, which must have exactly this number."""

    min_side: int = Field(16, ge=1)
    """Pixels; images with a shorter side are rejected."""

    placeholder_share: float = Field(0.9, gt=0, le=1)
    """A palette image (GIF, PNG) with few colours is rejected as a placeholder ("image not found") if one colour covers
    at least this share; 1 rejects only blank ones."""

    range: Literal["auto"] | tuple[float, float] = "auto"
    """The values that become black and white in grey images of more than 8 bits and of floats, the same for all of
    them: [low, high]. `auto` takes from the data the usual range that holds all values (0 to 4,095 for 12 bits, 0 to 1
    for floats) and says which; declare it where images may come that are darker or brighter. Images of 8 bits, and
    colour images of 16 bits (read by their high byte), are not affected."""

    max_pixels: int = Field(100_000_000, ge=1, le=178_956_970)
    """Images with more pixels are rejected. JPEGs with more than 100 million are decoded at a half, a quarter or an
    eighth of their sides, and count with the size that they have then."""

    max_aspect_ratio: float = Field(100.0, ge=1, le=1000)
    """Images are rejected whose longer side is more than so many times the shorter one."""

    max_seconds: float = Field(6.0, gt=0)
    """Seconds of one processor that decoding an image may take; images that need more are rejected."""

    max_memory_mb: int = Field(768, ge=64)
    """MB (of 2**20 bytes) that one image may take: its file, and what decoding it needs besides. Images that need more
    are rejected. All images that are decoded at the same moment share 768 MB; a larger one is decoded alone."""

    max_rejected: float = Field(0.05, ge=0)
    """If more files than this are rejected, the run stops: a share of all files if below 1, otherwise a number of
    files. Hidden files do not count."""

    @property
    def limits(self) -> Limits:
        return Limits(self.max_pixels, self.max_aspect_ratio, self.max_seconds, self.max_memory_mb)

    @field_validator("range")
    @classmethod
    def _black_comes_before_white(cls, value: Literal["auto"] | tuple[float, float]) -> Any:
        if value != "auto" and not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
            raise ValueError(f"the first value must be below the second, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _fractions_leave_something_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction must be below 1, got {self.val_fraction + self.test_fraction:g}"
            )
        return self
