"""The colours of a palette image, which tell a drawn placeholder from a page of text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

PARTS = 8
"""Along each side."""


@dataclass(frozen=True)
class Palette:
    """Attributes:
    colours: how many are used.
    largest_share: of the pixels that have the most frequent one.
    spread: share of the 8 x 8 parts of the image with a pixel of another colour.
    """

    colours: int
    largest_share: float
    spread: float

    @classmethod
    def of(cls, image: Image.Image) -> Palette:
        """Args:
        image: of the mode P.
        """
        counts = np.array(image.histogram())
        most = int(counts.argmax())
        indices_HW = np.asarray(image)
        parts = [
            bool((part != most).any())
            for band in np.array_split(indices_HW, PARTS)
            for part in np.array_split(band, PARTS, axis=1)
            if part.size
        ]
        return cls(int(np.count_nonzero(counts)), float(counts[most] / counts.sum()), sum(parts) / len(parts))
