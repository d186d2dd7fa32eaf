import numpy as np
import pytest
from PIL import Image

from bench.scratches import make_scratches, scratch


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for n in range(7):
        Image.new("RGB", (100, 80), (100, 20 * n, 0)).save(folder / f"{n}.jpg")
    return tmp_path / "photos"


def test_pictures_are_laid_out_as_in_mvtec(photos, tmp_path):
    found = make_scratches(photos, tmp_path / "out", good=3, test=4, scratched=2)
    counts = {
        folder: len(list((found / folder).iterdir()))
        for folder in ("train/good", "test/good", "test/scratch", "ground_truth/scratch")
    }
    assert counts == {"train/good": 3, "test/good": 2, "test/scratch": 2, "ground_truth/scratch": 2}
    assert {path.stem + "_mask" for path in (found / "test/scratch").iterdir()} == {
        path.stem for path in (found / "ground_truth/scratch").iterdir()
    }


def test_the_same_pictures_each_time(photos, tmp_path):
    first, second = (make_scratches(photos, tmp_path / name, good=3, test=4, scratched=2) for name in ("x", "y"))
    for path in first.rglob("*.png"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_too_few_pictures_are_said(photos, tmp_path):
    with pytest.raises(ValueError, match="7 pictures; 8 are needed"):
        make_scratches(photos, tmp_path / "out", good=4, test=4, scratched=2)


def test_a_scratch_changes_what_its_mask_covers_and_hardly_more():
    picture = Image.new("RGB", (100, 80), (120, 120, 120))
    found, mask = scratch(picture, np.random.default_rng(3))
    changed_HW = np.abs(np.asarray(found, int) - 120).max(axis=2)
    marked_HW = np.asarray(mask) > 0
    assert set(np.unique(mask)) == {0, 255}
    assert 15 < marked_HW.sum() < 150
    assert changed_HW[marked_HW].min() > 5
    assert changed_HW[~marked_HW].max() < changed_HW.max() / 2
