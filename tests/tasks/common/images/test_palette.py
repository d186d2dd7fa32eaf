import numpy as np
from PIL import Image, ImageDraw

from graft.tasks.common.images.palette import Palette


def page():
    image = Image.new("L", (200, 260), 255)
    for row in range(4, 250, 16):
        ImageDraw.Draw(image).text((8, row), "the quick brown fox jumps over", fill=0)
    return image.quantize(8)


def test_the_letters_of_a_page_are_spread_over_it():
    found = Palette.of(page())
    assert found.largest_share > 0.8
    assert found.spread > 0.8


def test_the_drawing_of_a_placeholder_is_not():
    values = np.zeros((80, 80), np.uint8)
    values[30:50, 30:50] = 1
    assert Palette.of(Image.fromarray(values, "L").convert("P")).spread < 0.2
