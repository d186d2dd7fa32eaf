"""What a network is shown of an image."""

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images.transform import EvalTransform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN = EvalTransform(224, 224, 0.875, "center", "bicubic", MEAN, STD)
"""The geometry of most weights."""


def timm_pixels(image, mode, height, width):
    """The pixels that timm shows with this crop mode and `crop_pct: 1`, before normalisation: uint8 (H, W, 3)."""
    import timm.data

    theirs = timm.data.create_transform(
        input_size=(3, height, width), crop_pct=1.0, crop_mode=mode, interpolation="bicubic", mean=MEAN, normalize=False
    )
    return np.asarray(theirs(image)).transpose(1, 2, 0)


@pytest.mark.parametrize(("width", "height", "seen"), [(640, 480, 0.574), (1000, 250, 0.191), (224, 224, 0.766)])
def test_the_middle_is_a_known_share_of_the_area(width, height, seen):
    assert OWN.seen(width, height) == pytest.approx(seen, abs=0.002)


@pytest.mark.parametrize("crop", ["squash", "border"])
@pytest.mark.parametrize("size", [(640, 480), (1000, 250), (3, 1000), (224, 224), (7, 5)], ids=str)
def test_nothing_is_unseen_when_it_is_squashed_or_has_borders(crop, size):
    assert OWN.showing(crop).seen(*size) == 1.0


@pytest.mark.parametrize("crop", ["squash", "border"])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (96, 160)])
@pytest.mark.parametrize("size", [(640, 480), (101, 303), (97, 31)], ids=str)
def test_squashed_and_bordered_pixels_are_those_of_timm(photo, crop, height, width, size):
    transform = EvalTransform(height, width, 0.875, "center", "bicubic", MEAN, STD).showing(crop)
    assert np.array_equal(transform(photo(*size)), timm_pixels(photo(*size), crop, height, width))


def test_auto_changes_nothing():
    assert OWN.showing("auto") is OWN


def test_the_middle_keeps_the_share_of_the_networks_own_crop():
    assert OWN.showing("border").showing("center").crop_pct == 1.0
    assert OWN.showing("center") == OWN


@pytest.mark.parametrize(("crop", "changes"), [("auto", False), ("center", False), ("squash", True), ("border", True)])
def test_a_defect_at_the_edge_is_seen_only_if_all_of_the_image_is(photo, crop, changes):
    sound, defect = photo(640, 480), photo(640, 480)
    defect.paste((255, 0, 255), (0, 200, 12, 280))
    shown = OWN.showing(crop)
    assert np.array_equal(shown(sound), shown(defect)) is not changes


def test_a_strip_one_pixel_high_still_has_a_height(photo):
    assert OWN.showing("border")(photo(1000, 1)).shape == (224, 224, 3)


def test_bars_have_the_mean_colour(photo):
    pixels = OWN.showing("border")(photo(640, 480))
    assert np.array_equal(pixels[0, 0], [round(255 * value) for value in MEAN])


@pytest.mark.parametrize("crop", ["squash", "border"])
def test_what_random_crops_are_taken_from_is_what_evaluation_shows(photo, crop):
    shown = OWN.showing(crop)
    assert np.array_equal(shown.whole(photo(640, 480)), shown(photo(640, 480)))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic", "lanczos"])
def test_an_elongated_image_is_cropped_before_it_is_resized(interpolation):
    """Resized as a whole to 224 x 2,800,000, it would take two gigabytes."""
    transform = EvalTransform(224, 224, 0.9, "center", interpolation, (0.5,) * 3, (0.5,) * 3)
    pixels = transform(Image.new("RGB", (16, 200_000), (9, 8, 7)))
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (9, 8, 7)).all()
