"""Images beside what the network looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..common.data.task import Task
from ..common.reporting.contact_sheet import save, visible
from .saliency import FILE, Look, Looks

LOOKS_A_ROW = 3

_TITLES: dict[Task, tuple[str, str]] = {"regression": ("Largest errors", "Smallest errors")}


def draw_looks(looks: Looks, folder: Path) -> None:
    """looks.png, if there is anything to see."""
    worst, best = _TITLES.get(looks.task, ("Worst mistakes", "Successes"))
    parts = {worst: [one for one in looks.seen if one.wrong], best: [one for one in looks.seen if not one.wrong]}
    if looks.seen:
        looks_picture({title: some for title, some in parts.items() if some}, folder / FILE)


def looks_picture(parts: Mapping[str, Sequence[Look]], path: Path) -> None:
    """Under each title pairs: an image as the network sees it, and the same with its heat map.

    Args:
        parts: title -> at least one look.
    """
    rows = {title: -(-len(looks) // LOOKS_A_ROW) for title, looks in parts.items()}
    first = next(iter(parts.values()))[0]
    height, width = first.heat_HW.shape
    row = 1.75 * height / width + 0.2 * (1 + first.caption.count("\n")) + 0.1
    inches = [row * n + 0.35 for n in rows.values()]
    figure = Figure(figsize=(3.6 * LOOKS_A_ROW, sum(inches)), layout="constrained")
    places = figure.subfigures(len(parts), 1, height_ratios=inches, squeeze=False).ravel()
    for place, (title, looks) in zip(places, parts.items()):
        place.suptitle(title)
        for axes in place.subplots(rows[title], LOOKS_A_ROW, squeeze=False).ravel():
            axes.axis("off")
        for axes, look in zip(place.axes, looks):
            axes.imshow(_pair(look))
            axes.set_title(look.caption, fontsize=9, parse_math=False)
    save(figure, path)


def _pair(look: Look) -> npt.NDArray[np.uint8]:
    """(H, 2 W and a gap, 3)."""
    photo_HW3 = np.asarray(visible(look.pixels), np.uint8)
    gap = np.full((len(photo_HW3), max(2, photo_HW3.shape[1] // 40), 3), 255, np.uint8)
    return np.hstack([photo_HW3, gap, overlaid(photo_HW3, look.heat_HW)])


def overlaid(photo_HW3: npt.NDArray[np.uint8], heat_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The heat's colours over a dimmed grey of the photograph, the hotter the less of it is to be seen through."""
    grey_HW1 = photo_HW3.astype(np.float64).mean(axis=2, keepdims=True)
    colour_HW3 = 255 * matplotlib.colormaps["inferno"](heat_HW)[..., :3]
    share_HW1 = 0.25 + 0.45 * heat_HW[..., None]
    return ((1 - share_HW1) * grey_HW1 + share_HW1 * colour_HW3).round().astype(np.uint8)
