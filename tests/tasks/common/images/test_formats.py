import io

import pytest
from PIL import Image

from bench.fuzzing import many_scans, shared_strips
from graft.tasks.common.images.formats import FORMATS, cost_of, open_image


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def is_quick(content):
    return cost_of(open_image(content), content).quick


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA"])
def test_common_formats_need_no_process_of_their_own(photo, form):
    assert is_quick(encoded(photo(64, 48), form))


def test_a_progressive_jpeg_of_a_camera_needs_none_either():
    assert is_quick(encoded(Image.new("RGB", (6_000, 4_000)), "JPEG", progressive=True))


def test_a_jpeg_of_hundreds_of_scans_is_decoded_apart():
    assert not is_quick(many_scans(encoded(Image.new("L", (3_000, 3_000)), "JPEG", progressive=True), 600))


def test_strips_that_share_their_bytes_are_decoded_apart():
    assert not is_quick(shared_strips(100, 100))


def test_a_large_image_whose_decoder_is_written_in_python_is_decoded_apart():
    assert not is_quick(encoded(Image.new("RGB", (1_200, 1_000)), "QOI"))


def test_a_format_that_executes_other_programs_is_not_among_them():
    assert not {"EPS", "PDF", "WMF"} & set(FORMATS)
