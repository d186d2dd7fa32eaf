"""Which test images the report shows with a heat map: missed and found defects, false alarms. N images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..common.core.paths import Paths
from ..common.data.task import GOOD
from ..common.images.masks import read_mask
from ..common.images.reading import Reading
from ..common.reporting.heat_map import shown
from .anomaly_metrics import Inspected
from .heat_plot import BOX, HeatExample, fitted, heat_plot

Places = list[int]

Heat = Callable[[int, tuple[int, int]], npt.NDArray[np.float32]]

TINY = 1e-12
"""What a threshold of 0 counts as."""

TITLES = {
    "missed": "Missed defects",
    "found": "Detected defects",
    "false_alarms": "False alarms",
    "nearest": "Good images with the highest scores",
}
"""Part of the report -> its heading; PART.png has the pictures."""


def chosen(found: Inspected) -> dict[str, Places]:
    """Part -> its images in order: missed defects, the lowest score first; detected ones, the highest first, kind by
    kind in turn; false alarms, the highest first, and if there is none the other good images. No empty part."""
    defect_N, over_N = found.defect, found.anomalous
    rising = np.lexsort((found.index["path"].to_numpy(str), found.score))
    falling = np.lexsort((found.index["path"].to_numpy(str), -found.score))
    parts = {
        "missed": _only(rising, defect_N & ~over_N),
        "found": _in_turn(_only(falling, defect_N & over_N), found),
        "false_alarms": _only(falling, ~defect_N & over_N),
    }
    if not parts["false_alarms"]:
        parts["nearest"] = _only(falling, ~defect_N)
    return {name: places for name, places in parts.items() if places}


def _only(order: npt.NDArray[np.int64], wanted_N: npt.NDArray[np.bool_]) -> Places:
    return [int(place) for place in order if wanted_N[place]]


def _in_turn(places: Places, found: Inspected) -> Places:
    """One of each kind of defect, then the next of each."""
    kind_N, seen = found.index["label"].to_numpy(), dict.fromkeys(found.kinds, 0)
    rounds = []
    for place in places:
        rounds.append(seen[kind_N[place]])
        seen[kind_N[place]] += 1
    return [places[k] for k in np.argsort(rounds, kind="stable")]


def draw_examples(
    parts: Mapping[str, Places], found: Inspected, heat: Heat, reading: Reading, paths: Paths, folder: Path
) -> None:
    """A picture for each part.

    Args:
        heat: (image, (H, W)) -> its heat map of this size, as scores.
    """
    for name, places in parts.items():
        heat_plot([_example(place, found, heat, reading, paths) for place in places], folder / f"{name}.png")


def _example(place: int, found: Inspected, heat: Heat, reading: Reading, paths: Paths) -> HeatExample:
    row, unit = found.index.iloc[place], max(found.threshold, TINY)
    with reading.file(paths.raw / row["path"], row["image_id"]) as picture:
        photo = Image.fromarray(shown(picture))
    width, height = fitted(*photo.size)
    kind = Image.Resampling.NEAREST if max(photo.size) < BOX else Image.Resampling.LANCZOS
    caption = f"{row['label']}: {found.score[place] / unit:.2f} x threshold (p = {found.p_value[place]:.2g})"
    return HeatExample(
        caption,
        np.asarray(photo.resize((width, height), kind)),
        heat(place, (height, width)) / np.float32(unit),
        _mask(row, (width, height), reading, paths),
    )


def _mask(row: Any, size: tuple[int, int], reading: Reading, paths: Paths) -> npt.NDArray[np.bool_] | None:
    if row["label"] == GOOD or not isinstance(row["mask"], str):
        return None
    mask_HW = read_mask(paths.raw / row["mask"], reading.limits)
    small = Image.fromarray(mask_HW).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(small) > 0
