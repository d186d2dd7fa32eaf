"""Test images beside their saliency maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..common.data.task import Task
from ..common.images.contact_sheet import save, visible
from .saliency import FILE, Saliency, SaliencyExample

COLUMNS = 3

_TITLES: dict[Task, tuple[str, str]] = {"regression": ("Largest errors", "Smallest errors")}


def draw_saliency(saliency: Saliency, folder: Path) -> None:
    """saliency.png, if there are examples."""
    worst, best = _TITLES.get(saliency.task, ("Misclassified", "Correct"))
    parts: dict[str, list[SaliencyExample]] = {}
    for one in saliency.examples:
        parts.setdefault(worst if one.wrong else best, []).append(one)
    if parts:
        saliency_plot(parts, folder / FILE)


def saliency_plot(parts: Mapping[str, Sequence[SaliencyExample]], path: Path) -> None:
    """Under each title pairs: an image, and the same under its Grad-CAM map; what the network does not see is pale.

    Args:
        parts: title -> at least one example.
    """
    rows = {title: -(-len(examples) // COLUMNS) for title, examples in parts.items()}
    every = [example for examples in parts.values() for example in examples]
    height, width = (max(example.map_HW.shape[axis] for example in every) for axis in (0, 1))
    row = 1.75 * height / width + 0.2 * (1 + every[0].caption.count("\n")) + 0.1
    inches = [row * n + 0.35 for n in rows.values()]
    figure = Figure(figsize=(3.6 * COLUMNS, sum(inches)), layout="constrained")
    places = figure.subfigures(len(parts), 1, height_ratios=inches, squeeze=False).ravel()
    for place, (title, examples) in zip(places, parts.items()):
        place.suptitle(title)
        for axes in place.subplots(rows[title], COLUMNS, squeeze=False).ravel():
            axes.axis("off")
        for axes, example in zip(place.axes, examples):
            axes.imshow(_pair(example))
            axes.set_title(example.caption, fontsize=9, parse_math=False)
    save(figure, path)


def _pair(example: SaliencyExample) -> npt.NDArray[np.uint8]:
    """(H, 2 W and a gap, 3)."""
    photo_HW3 = np.asarray(visible(example.pixels), np.uint8)
    below_HW3 = overlaid(photo_HW3, example.map_HW)
    below_HW3[~example.seen_HW] = (photo_HW3[~example.seen_HW] + 2 * 255.0) / 3
    gap = np.full((len(photo_HW3), max(2, photo_HW3.shape[1] // 40), 3), 255, np.uint8)
    return np.hstack([photo_HW3, gap, below_HW3])


def overlaid(photo_HW3: npt.NDArray[np.uint8], map_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The colours of the map over the image in dimmed grey; the higher the value, the more opaque."""
    grey_HW1 = photo_HW3.astype(np.float64).mean(axis=2, keepdims=True)
    colour_HW3 = 255 * matplotlib.colormaps["inferno"](map_HW)[..., :3]
    share_HW1 = 0.25 + 0.45 * map_HW[..., None]
    return ((1 - share_HW1) * grey_HW1 + share_HW1 * colour_HW3).round().astype(np.uint8)
