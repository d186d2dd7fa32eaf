"""A real HEIC file through the process of its own; its left half is blue, and EXIF says to turn it by 90 degrees."""

from pathlib import Path

import pytest

from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.unreadable import Refused

FILE = Path(__file__).parent / "turned.heic"


@pytest.fixture(autouse=True)
def _extra():
    pytest.importorskip("pi_heif", reason="the extra `heic` is not installed: pip install 'graft[heic]'")


def test_a_heic_file_is_decoded_upright():
    with Reading().file(FILE) as (picture,):
        assert (picture.mode, picture.size) == ("RGB", (48, 64))
        (red, _, blue), (other_red, _, other_blue) = picture.getpixel((24, 8)), picture.getpixel((24, 56))
    assert blue > 150 > 100 > red
    assert other_red > 150 > 100 > other_blue


def test_a_heic_file_beyond_a_limit_is_refused_by_name():
    with pytest.raises(Refused, match="max_pixels"), Reading(limits=Limits(max_pixels=100)).image(FILE.read_bytes()):
        pass
