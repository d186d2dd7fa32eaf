import numpy as np
import pytest
from PIL import Image

from graft.tasks.studies.drift import compare
from graft.tasks.studies.drift_picture import drift_picture


@pytest.fixture(scope="module")
def found():
    features = np.random.default_rng(0).normal(1, 0.3, (60, 8))
    return compare(features[:40], features[40:], significance=0.01, permutations=199, far_quantile=0.95)


def test_both_samples_are_drawn_in_colours_of_their_own(found, tmp_path):
    drift_picture(found, "graft version 1", tmp_path / "drift.png")

    pixels = np.asarray(Image.open(tmp_path / "drift.png").convert("RGB")).astype(int)
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (red - blue > 60).sum() > 200
    assert (blue - red > 8).sum() > 200
    assert pixels.shape[1] > 500


def test_the_same_comparison_gives_the_same_bytes(found, tmp_path):
    for name in ("one.png", "two.png"):
        drift_picture(found, "graft version 1", tmp_path / name)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_name_with_signs_of_mathematics_is_drawn_as_it_is(found, tmp_path):
    drift_picture(found, r"$\graft$ version 1", tmp_path / "drift.png")

    assert (tmp_path / "drift.png").is_file()
