"""Images beside their targets, what was decoded, and the error. H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from ..common.images.contact_sheet import CAPTION, DPI, LINE, save

BOX, GAP, MARGIN = 150, 4, 14
"""Pixels: the longer side of a picture, between pictures, and around a row of them."""

TITLES = ("image", "target", "decoded", "error")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DecodedExample:
    """A test image.

    Attributes:
        caption: above it.
        picture: uint8 (H, W, C).
        target: uint8 (H, W, 1) or (H, W, C).
        decoded: float32 of the same shape, from 0 to 1.
    """

    caption: str
    picture: Pixels
    target: Pixels
    decoded: npt.NDArray[np.float32]

    def sides(self) -> list[Pixels]:
        """In the order of `TITLES`; the error is the mean absolute difference of the channels, white where it is 1."""
        error_HW = np.abs(self.decoded - self.target / np.float32(255)).mean(axis=2)
        sides: list[npt.NDArray[Any]] = [self.picture, self.target, 255 * self.decoded, 255 * error_HW[..., None]]
        return [colours(each) for each in sides]


def colours(pixels_HWC: npt.NDArray[Any]) -> Pixels:
    """As RGB: of other than three channels the first."""
    rgb = pixels_HWC if pixels_HWC.shape[2] == 3 else np.repeat(pixels_HWC[..., :1], 3, axis=2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def decoded_plot(examples: Sequence[DecodedExample], path: Path) -> None:
    """A row for each of at least one example."""
    height, width = examples[0].picture.shape[:2]
    scale = BOX / max(height, width)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    cell, above = wide + GAP, LINE * (1 + max(one.caption.count("\n") for one in examples))
    across, step, top = len(TITLES) * cell + 2 * MARGIN, above + high + MARGIN, 2 * LINE
    down = top + step * len(examples)
    sheet, figure = Image.new("RGB", (across, down), "white"), Figure(figsize=(across / DPI, down / DPI), dpi=DPI)
    for column, title in enumerate(TITLES):
        figure.text((MARGIN + column * cell + wide / 2) / across, 1 - LINE / down, title, ha="center", fontsize=CAPTION)
    for number, one in enumerate(examples):
        edge = top + number * step + above
        for column, side in enumerate(one.sides()):
            small = Image.fromarray(side).resize((wide, high), Image.Resampling.LANCZOS)
            sheet.paste(small, (MARGIN + column * cell, edge))
        figure.text(
            MARGIN / across, 1 - (edge - 4) / down, one.caption, va="bottom", fontsize=CAPTION, parse_math=False
        )
    figure.figimage(np.asarray(sheet), zorder=-1)
    save(figure, path)
