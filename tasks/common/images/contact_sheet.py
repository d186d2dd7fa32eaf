"""Contact sheets: images with captions. They carry no date, so that the same images give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .decode import Picture, Pixels
from .reading import Reading

matplotlib.use("agg")

COLUMNS = 6

DPI = 110

CELL, BOX, TOP = 242, 220, 44
"""Pixels: the width of a cell, the longer side of the image in it, and the height of the title."""

CAPTION, LINE = 9, 17
"""Font size of captions in points, and height of a line in pixels."""


def contact_sheet(
    images: Sequence[Path], captions: Sequence[str], title: str, path: Path, reading: Reading, columns: int = COLUMNS
) -> None:
    """Draws `images` with `captions` above them, row by row. One pair of axes per image would take seconds.

    Args:
        reading: how the images are read.
    """
    columns = min(columns, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    above = LINE * max((caption.count("\n") + 1 for caption in captions), default=1)
    width, height = CELL * columns, (BOX + above + (CELL - BOX)) * rows + TOP
    sheet = Image.new("RGB", (width, height), "white")
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.text(0.5, 1 - TOP / 2 / height, title, ha="center", va="center", fontsize=12, parse_math=False)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left, top = CELL * column + (CELL - BOX) // 2, TOP + (BOX + above + (CELL - BOX)) * row + above
        with reading.file(image) as picture:
            small = _filling(_visible(picture))
        sheet.paste(small, (left + (BOX - small.width) // 2, top))
        figure.text(
            (left + BOX / 2) / width,
            1 - (top - 4) / height,
            caption,
            ha="center",
            va="bottom",
            fontsize=CAPTION,
            parse_math=False,
        )
    figure.figimage(np.asarray(sheet), zorder=-1)
    save(figure, path)


def _filling(image: Image.Image) -> Image.Image:
    """Resized to a longer side of `BOX`; small images keep visible pixels."""
    kind = Image.Resampling.NEAREST if max(image.size) < BOX else Image.Resampling.LANCZOS
    scale = BOX / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), kind)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _visible(picture: Picture) -> Image.Image:
    """In RGB: with three bands or more the first three as red, green and blue; with fewer the first as grey."""
    if len(picture) >= 3:
        return Image.merge("RGB", picture[:3])
    return picture[0].convert("RGB")


def visible(pixels: Pixels) -> Image.Image:
    """The same for the input of a network."""
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
