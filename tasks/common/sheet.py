"""A sheet of images, each with a few words. Figures carry no date, so that the same images give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .images import Picture, Pixels, decode_bands

matplotlib.use("agg")

THUMBNAIL = 224
"""Pixels of an image's longer side."""

COLUMNS = 6


def contact_sheet(
    images: Sequence[Path], captions: Sequence[str], title: str, path: Path, channels: int = 3, columns: int = COLUMNS
) -> None:
    """Draws `images` with `captions` above them, row by row.

    Args:
        channels: as how many the images were read.
    """
    columns = min(columns, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(2.2 * columns, 2.6 * rows + 0.4), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.axis("off")
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        thumbnail = _visible(decode_bands(image, channels))
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
        axes.imshow(np.asarray(thumbnail))
        axes.set_title(caption, fontsize=9, parse_math=False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _visible(picture: Picture) -> Image.Image:
    """In RGB: of three bands and more the first three as red, green and blue; of fewer the first as grey."""
    if len(picture) >= 3:
        return Image.merge("RGB", picture[:3])
    return picture[0].convert("RGB")


def visible(pixels: Pixels) -> Image.Image:
    """The same of what a network sees."""
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
