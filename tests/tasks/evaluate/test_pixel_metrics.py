"""Pixels of pictures and masks of any size."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from projects import draw_tile

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.reading import Reading
from graft.tasks.evaluate import pixel_metrics
from graft.tasks.evaluate.pixel_metrics import Pixels, shrunk


@pytest.fixture
def tiles(tmp_path):
    """Tables of tiles: two good ones, a scratch and a hole of 1:6 with masks, a hole without one."""
    paths, rows = Paths(tmp_path), []
    for number, (kind, size, masked) in enumerate(
        [("good", (48, 48), False), ("good", (150, 25), False), ("scratch", (60, 40), True),
         ("hole", (150, 25), True), ("hole", (48, 48), False)]
    ):  # fmt: skip
        mask = draw_tile(paths.raw / f"{number}.png", number, kind, size)
        if masked:
            mask.save(paths.raw / f"{number}_mask.png")
        rows.append({"image_id": None, "path": f"{number}.png", "label": kind,
                     "mask": f"{number}_mask.png" if masked else None})  # fmt: skip
    return paths, pd.DataFrame(rows)


def counted(tiles, heat_of):
    """(metrics, place -> the size that was asked for) of maps by `heat_of(place, size)`."""
    paths, index = tiles
    pixels, asked = Pixels(index, Reading(), paths), {}

    def at(place):
        def heat(size):
            asked[place] = size
            return heat_of(place, size)

        return heat

    for place in range(len(index)):
        pixels.add(place, at(place))
    return pixels.metrics(), asked


def perfect(tiles):
    def heat(place, size):
        file = tiles[0].raw / f"{place}_mask.png"
        if not file.is_file():
            return np.zeros(size, np.float32)
        with Image.open(file) as mask:
            return np.asarray(mask, np.float32)

    return heat


def test_maps_are_asked_for_in_the_shape_of_each_picture_but_not_of_a_defect_without_a_mask(tiles):
    metrics, asked = counted(tiles, perfect(tiles))
    assert asked == {0: (48, 48), 1: (25, 150), 2: (40, 60), 3: (25, 150)}
    assert (metrics["pixel_auroc"], metrics["au_pro"]) == (pytest.approx(1), pytest.approx(1))
    assert (metrics["pixels"]["masks"], metrics["pixels"]["regions"]) == (2, 2)


def test_constant_maps_are_no_better_than_chance(tiles):
    metrics, _ = counted(tiles, lambda place, size: np.ones(size, np.float32))
    assert (metrics["pixel_auroc"], metrics["au_pro"]) == (pytest.approx(0.5), pytest.approx(0.15))


def test_without_a_mask_no_map_is_asked_for_and_there_are_no_metrics(tiles):
    paths, index = tiles
    assert counted((paths, index.assign(mask=None)), perfect(tiles)) == ({}, {})


def test_a_large_mask_is_shrunk_and_loses_no_region(monkeypatch):
    monkeypatch.setattr(pixel_metrics, "LARGEST", 100)
    mask = np.zeros((50, 91), bool)
    mask[0, 0] = mask[49, 90] = True
    small = shrunk(mask)
    assert small.size <= 100
    assert small[0, 0]
    assert small[-1, -1]
    assert small.sum() == 2
