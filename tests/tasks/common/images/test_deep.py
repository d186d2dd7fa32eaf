import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images import deep
from graft.tasks.common.images.deep import extremes, nominal, to_grey
from graft.tasks.common.images.unreadable import WrongForm


def grey(values, span):
    return np.asarray(to_grey(Image.fromarray(np.asarray(values)), span)).ravel().tolist()


def test_sixteen_bits_keep_their_high_byte():
    assert grey(np.array([[0, 255, 256, 65535]], np.uint16), None) == [0, 0, 1, 255]


def test_twelve_bits_keep_256_levels():
    assert len(set(grey(np.arange(4096, dtype=np.uint16).reshape(64, 64), (0, 4095)))) == 256


def test_eight_bits_in_sixteen_keep_their_values():
    assert grey(np.arange(256, dtype=np.uint16).reshape(16, 16), (0, 255)) == list(range(256))


@pytest.mark.parametrize(("span", "expected"), [((0, 1), [0, 0, 128, 255]), ((-1, 1), [0, 128, 191, 255])])
def test_floats_are_mapped_by_the_range(span, expected):
    assert grey(np.array([[-1, 0, 0.5, 1]], np.float32), span) == pytest.approx(expected, abs=1)


def test_values_outside_are_clipped_and_no_number_is_black():
    assert grey(np.array([[-9, 9, np.nan, np.inf]], np.float32), (0, 1)) == [0, 255, 0, 255]


def test_the_darker_of_two_images_stays_the_darker():
    dark, bright = np.full((4, 4), 1000, np.uint16), np.full((4, 4), 3000, np.uint16)
    assert grey(dark, (0, 4095))[0] < grey(bright, (0, 4095))[0]


def test_floats_without_a_range_are_refused():
    with pytest.raises(WrongForm, match=r"preprocess\.range"):
        grey(np.zeros((2, 2), np.float32), None)


def test_extremes_leave_out_what_is_no_number():
    assert extremes(Image.fromarray(np.array([[np.nan, -2, 5, np.inf]], np.float32))) == (-2, 5)


@pytest.mark.parametrize(
    ("low", "high", "integers", "expected"),
    [
        (3, 200, True, (0, 255)),
        (0, 1000, True, (0, 1023)),
        (7, 4000, True, (0, 4095)),
        (0, 40000, True, (0, 65535)),
        (-1000, 3000, True, (-1000, 3000)),
        (0.2, 0.9, False, (0, 1)),
        (-0.2, 0.9, False, (-1, 1)),
        (0.0, 254.5, False, (0, 255)),
        (0, 1, True, (0, 255)),
    ],
)
def test_the_usual_range_that_holds_all_values_is_taken(low, high, integers, expected):
    assert nominal(low, high, integers) == expected


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
@pytest.mark.parametrize("span", [(0, 65535), (0, 4095), (100, 300), (-50, 70.5), (0, 0.5), (3e9, 4e9), (0, 1e300)])
def test_a_table_gives_what_computing_gives(kind, span):
    values = np.concatenate([np.arange(65536), [] if kind is np.uint16 else [-(2**31), -60, -1, 70_000, 2**31 - 1]])
    values = values.astype(kind)
    assert np.array_equal(deep._mapped(values, *span), deep._steps(values, *span))
