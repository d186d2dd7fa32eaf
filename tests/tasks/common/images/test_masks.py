import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.masks import read_mask
from graft.tasks.common.images.unreadable import UnreadableImage


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P"])
def test_pixels_above_zero_are_marked_whatever_the_mode(tmp_path, mode):
    marked_HW = np.zeros((20, 30), np.uint8)
    marked_HW[4:6, 7:9] = 1
    image = (
        Image.fromarray(marked_HW * 255).convert(mode)
        if mode in ("1", "P")
        else Image.fromarray(marked_HW.astype(np.uint16 if mode == "I;16" else np.uint8))
    )
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), marked_HW > 0)


def test_a_mask_over_the_limits_is_refused(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "mask.png")
    with pytest.raises(UnreadableImage, match="30 x 20 px"):
        read_mask(tmp_path / "mask.png", Limits(max_pixels=500))
