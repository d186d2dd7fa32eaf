import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.preprocess.masks import faults_of_masks
from graft.tasks.preprocess.params import PreprocessParams


@pytest.fixture
def fault(tmp_path):
    """fault(mask, label) -> why a mask cannot be used for an image of 48 x 48 pixels."""
    paths = Paths(tmp_path)

    def judge(content, label="hole"):
        file = paths.raw / "mask.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        content.save(file) if isinstance(content, Image.Image) else file.write_bytes(content)
        images = pd.DataFrame(
            {"path": ["1.png"], "label": [label], "width": [48], "height": [48], "mask": ["mask.png"]}
        )
        return faults_of_masks(images, {"mask.png": md5(file)}, PreprocessParams(), paths).get("mask.png", "")

    return judge


def grey(value, size=(48, 48)):
    return Image.new("L", size, value)


def dot(mode, value):
    image = Image.new(mode, (48, 48))
    image.putpixel((3, 5), value)
    return image


@pytest.mark.parametrize("mask", [dot("L", 1), dot("1", 1), dot("I;16", 700), dot("RGB", (255, 0, 0)), grey(255)])
def test_any_pixel_above_zero_is_a_defect(fault, mask):
    assert fault(mask) == ""


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (grey(255, (48, 40)), r"mask: 48 x 40 px, but 1.png has 48 x 48"),
        (grey(0), "mask: it marks no pixel, but 1.png is labelled hole"),
        (dot("RGBA", (0, 0, 0, 255)), "mask: it has transparency"),
        (b"no image", "mask: not an image"),
        (b"", "mask: empty file"),
    ],
)
def test_a_mask_that_cannot_be_used_says_why(fault, mask, why):
    assert fault(mask).startswith(why)


def test_a_mask_of_a_good_image_is_empty(fault):
    assert fault(grey(0), "good") == ""
    assert fault(dot("L", 9), "good") == "mask: it marks a defect, but 1.png is labelled good"
