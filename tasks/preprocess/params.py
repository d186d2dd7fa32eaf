"""The section `preprocess` of params.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ..common.core.sections import Section


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

    max_rejected: float = Field(0.05, ge=0)
    """If more files than this are rejected, the run stops: a share of all files if below 1, otherwise a number of
    files. Hidden files do not count."""

    @model_validator(mode="after")
    def _fractions_leave_something_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction must be below 1, got {self.val_fraction + self.test_fraction:g}"
            )
        return self
