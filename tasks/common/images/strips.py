"""A large image in parts: it then needs no second and third copy in memory."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

STRIP = 1 << 22
"""Pixels of a part."""


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(the first row, a part of about `STRIP` pixels), from the top down."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
