"""Pictures beside their heat maps. H x W pixels of a picture on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from ..common.images.contact_sheet import CAPTION, DPI, LINE, save
from ..common.reporting.heat_map import COLOURS, RATIO, overlay

Colours = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

OUTLINE = (0, 230, 255)
"""Of a mask: no colour of the heat map."""

COLUMNS = 3

BOX, GAP, MARGIN, SCALE = 210, 4, 16, 56
"""Pixels: the longer side of a picture, between it and its heat map, between pairs, and of the scale at the top."""

WIDE = 2.0
"""A picture that is so many times as wide as high has its heat map below it, any other beside it."""


@dataclass(frozen=True)
class HeatExample:
    """A test image and where it is anomalous.

    Attributes:
        caption: above it.
        photo_HW3: the picture, `BOX` pixels high or wide.
        heat_hw: its heat map of any resolution, in units of the threshold.
        mask_HW: which pixels have a defect; None if not known.
    """

    caption: str
    photo_HW3: Colours
    heat_hw: npt.NDArray[np.float32]
    mask_HW: Bools | None = None


def fitted(width: int, height: int) -> tuple[int, int]:
    """The (width, height) of a picture on the page."""
    scale = BOX / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def heat_plot(examples: Sequence[HeatExample], path: Path) -> None:
    """Row by row; left or above the picture, right or below the same under its heat map, both with the outline of the
    mask.

    Args:
        examples: at least one.
    """
    columns = min(COLUMNS, len(examples))
    rows = [examples[start : start + columns] for start in range(0, len(examples), columns)]
    cell, above = 2 * BOX + GAP + MARGIN, LINE * (1 + max(one.caption.count("\n") for one in examples))
    pairs = [[pair(one) for one in row] for row in rows]
    heights = [above + max(len(each) for each in row) + MARGIN for row in pairs]
    width, height = cell * columns, SCALE + sum(heights)
    sheet, figure = Image.new("RGB", (width, height), "white"), Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for number, (row, pixels) in enumerate(zip(rows, pairs, strict=True)):
        top = SCALE + sum(heights[:number]) + above
        for column, (one, each) in enumerate(zip(row, pixels, strict=True)):
            left = column * cell + (cell - each.shape[1]) // 2
            sheet.paste(Image.fromarray(each), (left, top))
            x, y = (column + 0.5) * cell / width, 1 - (top - 4) / height
            figure.text(x, y, one.caption, ha="center", va="bottom", fontsize=CAPTION, parse_math=False)
    figure.figimage(np.asarray(sheet), zorder=-1)
    _draw_scale(figure, width, height)
    save(figure, path)


def _draw_scale(figure: Figure, width: int, height: int) -> None:
    wide = min(420, width - 100)
    axes = figure.add_axes(((width - wide) / 2 / width, 1 - 22 / height, wide / width, 12 / height))
    steps = np.linspace(RATIO[0], RATIO[-1], 256)
    colours = [np.interp(steps, RATIO, [value / 255 for value in band]) for band in zip(*COLOURS, strict=True)]
    scale = ScalarMappable(Normalize(RATIO[0], RATIO[-1]), ListedColormap(np.stack(colours, axis=1)))
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.set_ticks(list(RATIO), labels=["threshold" if ratio == 1 else f"{ratio:g} x" for ratio in RATIO])
    bar.ax.tick_params(labelsize=CAPTION)
    bar.ax.axvline(1.0, color="black", linewidth=1)


def pair(one: HeatExample) -> Colours:
    """The picture and the same under its heat map, in one picture."""
    sides = [outlined(each, one.mask_HW) for each in (one.photo_HW3, overlay(one.photo_HW3, one.heat_hw, 1.0))]
    height, width = one.photo_HW3.shape[:2]
    if width >= WIDE * height:
        return np.vstack([sides[0], np.full((GAP, width, 3), 255, np.uint8), sides[1]])
    return np.hstack([sides[0], np.full((height, GAP, 3), 255, np.uint8), sides[1]])


def outlined(photo_HW3: Colours, mask_HW: Bools | None) -> Colours:
    """With a line around each region of the mask, one pixel outside it."""
    if mask_HW is None:
        return photo_HW3
    drawn_HW3, near_HW = photo_HW3.copy(), _grown(mask_HW)
    drawn_HW3[_grown(near_HW) & ~near_HW] = OUTLINE
    return drawn_HW3


def _grown(mask_HW: Bools) -> Bools:
    """By one pixel to each side."""
    padded = np.pad(mask_HW, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
