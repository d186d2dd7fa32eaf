"""The section `preprocess` of params.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ..common.core.sections import Section


class PreprocessParams(Section):
    """Which files count as images, and how they are split."""

    val_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the images for validation, where the data bring no split of their own."""

    test_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the images for the test, where the data bring no split of their own."""

    seed: int = 0
    """Another seed is another split."""

    channels: int = Field(3, ge=1)
    """As what images are read: 1 is grey, 3 is RGB; any other number takes bands as they are, of images (4: RGBA, CMYK)
    and .npy arrays that have exactly so many."""

    min_side: int = Field(16, ge=1)
    """Pixels; an image with a shorter side is rejected."""

    placeholder_share: float = Field(0.9, gt=0, le=1)
    """A palette image (GIF, PNG) of few colours, of which one covers at least this share, is rejected as a placeholder
    ("image not found"); 1 keeps all but blank ones."""

    max_rejected: float = Field(0.05, ge=0)
    """More rejected files than this stop the run: a share of all files when below 1, a number of files otherwise.
    Hidden files do not count."""

    @model_validator(mode="after")
    def _fractions_leave_something_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction must be below 1, got {self.val_fraction + self.test_fraction:g}"
            )
        return self
