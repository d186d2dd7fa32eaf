"""Which images are shown with a heat map, and that a map goes back to the shape of its picture."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.reading import Reading
from graft.tasks.evaluate.anomaly_metrics import Inspected
from graft.tasks.evaluate.heat_examples import chosen, draw_examples
from graft.tasks.evaluate.heat_plot import BOX, OUTLINE, HeatExample, fitted, heat_plot, outlined, pair

LABELS = ["good", "good", "good", "hole", "hole", "hole", "crack", "crack"]
SCORES = np.array([0.2, 1.3, 1.1, 0.4, 3.0, 2.0, 1.5, 0.9])


def inspected(threshold=1.0, masks=None, sizes=None, folder=None):
    index = pd.DataFrame({"image_id": None, "path": [f"{n}.png" for n in range(8)], "label": LABELS})
    for n, size in enumerate(sizes or []):
        Image.new("RGB", size, (90, 90, 90)).save(folder / f"{n}.png")
    return Inspected(index.assign(mask=masks), SCORES, np.full(8, 0.5), threshold, np.arange(8))


def photo(height=40, width=60):
    return np.full((height, width, 3), 120, np.uint8)


def test_missed_defects_come_lowest_first_and_found_ones_kind_by_kind():
    parts = chosen(inspected())
    assert parts == {"missed": [3, 7], "found": [4, 6, 5], "false_alarms": [1, 2]}


def test_without_a_false_alarm_the_nearest_good_images_are_shown():
    parts = chosen(inspected(threshold=1.4))
    assert "false_alarms" not in parts
    assert parts["nearest"] == [1, 2, 0]


def test_parts_without_an_image_are_left_out():
    assert list(chosen(inspected(threshold=0.1))) == ["found", "false_alarms"]


def test_a_mask_is_outlined_around_the_defect_and_not_on_it():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:40] = True
    drawn = outlined(photo(), mask)
    line = (drawn == OUTLINE).all(axis=2)
    assert line.any()
    assert not line[mask].any()
    assert (outlined(photo(), None) == photo()).all()


def test_the_picture_is_seen_under_its_heat_map():
    varied = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    hot = pair(HeatExample("a", varied, np.full((4, 6), 5.0, np.float32)))[:, -60:]
    grey = varied.mean(axis=2).ravel()
    assert np.corrcoef(grey, hot.mean(axis=2).ravel())[0, 1] > 0.99
    assert hot.reshape(-1, 3).mean(axis=0)[0] > hot.reshape(-1, 3).mean(axis=0)[2] + 20


@pytest.mark.parametrize(("width", "height"), [(600, 100), (100, 600), (48, 48), (5000, 4000)])
def test_pictures_of_any_shape_fit_and_keep_their_proportions(width, height):
    wide, tall = fitted(width, height)
    assert max(wide, tall) == BOX
    assert wide / tall == pytest.approx(width / height, rel=0.02)


@pytest.mark.parametrize(("height", "width", "expected"), [(35, 210, (74, 210)), (210, 35, (210, 74))])
def test_a_wide_picture_is_above_its_heat_map_and_a_tall_one_beside_it(height, width, expected):
    found = pair(HeatExample("a", photo(height, width), np.ones((3, 3), np.float32)))
    assert found.shape[:2] == expected


def test_a_sheet_of_mixed_sizes_gives_the_same_bytes_again(tmp_path):
    examples = [
        HeatExample("a $1_", photo(*size), np.full((2, 2), 1.5, np.float32), np.zeros(size, bool))
        for size in ((35, 210), (210, 35), (120, 210), (210, 210))
    ]
    heat_plot(examples, tmp_path / "a.png")
    heat_plot(examples, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > 3 * 2 * BOX


def test_every_map_is_asked_for_in_the_shape_of_its_picture(tmp_path):
    sizes = [(48, 48), (300, 50), (50, 300), (48, 48), (64, 32), (48, 48), (500, 500), (7, 5)]
    paths, asked = Paths(tmp_path), {}
    paths.raw.mkdir(parents=True)
    found = inspected(sizes=sizes, folder=paths.raw)

    def heat(place, size):
        asked[place] = size
        return np.zeros(size, np.float32)

    draw_examples(chosen(found), found, heat, Reading(), paths, tmp_path)
    assert asked == {n: fitted(*sizes[n])[::-1] for n in range(1, 8)}
    assert {"missed.png", "found.png", "false_alarms.png"} <= {file.name for file in tmp_path.iterdir()}
