import hashlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images import reading as module
from graft.tasks.common.images.formats import Cost
from graft.tasks.common.images.limits import MB, SCALED_FROM, Limits
from graft.tasks.common.images.reading import Reading, content_of
from graft.tasks.common.images.unreadable import Refused, UnreadableImage

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def read(content, reading=None):
    with (reading or Reading()).image(content) as picture:
        return picture


def test_the_bytes_that_are_decoded_are_those_that_were_listed(tmp_path, photo):
    photo(20, 20).save(tmp_path / "a.png")
    listed = hashlib.md5((tmp_path / "a.png").read_bytes()).hexdigest()
    with Reading().file(tmp_path / "a.png", listed) as picture:
        assert picture[0].size == (20, 20)
    photo(20, 21).save(tmp_path / "a.png")
    with (
        pytest.raises(DataError, match=r"a\.png has changed since it was listed"),
        Reading().file(tmp_path / "a.png", listed),
    ):
        pass


def test_an_error_of_the_caller_is_not_taken_for_an_unreadable_file(tmp_path, photo):
    photo(20, 20).save(tmp_path / "a.png")
    with pytest.raises(OSError, match="disk is full"), Reading().file(tmp_path / "a.png"):
        raise OSError("disk is full")


def test_the_memory_of_an_image_is_held_until_it_is_cropped(photo, monkeypatch):
    budget = module.DECODING.__class__(1)
    monkeypatch.setattr(module, "DECODING", budget)
    content, other = encoded(photo(20, 20), "PNG"), threading.Event()
    with Reading().image(content):
        thread = threading.Thread(target=lambda: (read(content), other.set()))
        thread.start()
        assert not other.wait(0.05)
    assert other.wait(10)
    thread.join()


def test_a_process_is_given_what_is_claimed_and_then_all_that_is_allowed(photo, monkeypatch):
    monkeypatch.setattr(module, "OPAQUE", Cost(MB, quick=False))  # too little
    budget, tried = module.DECODING, []
    honest = module.decode_apart

    def noted(content, channels, limits, share):
        tried.append((share.bytes, budget._used))
        return honest(content, channels, limits, share)

    monkeypatch.setattr(module, "decode_apart", noted)
    assert read(encoded(photo(900, 800), "JPEG2000"))[0].size == (900, 800)
    assert tried == [(MB, MB), (Limits().max_memory_mb * MB, Limits().max_memory_mb * MB)]


def test_a_library_that_calls_a_lack_of_memory_damage_gets_more(photo, monkeypatch):
    honest = module.decode_apart

    def starved(content, channels, limits, share):
        if share.bytes < limits.max_memory_mb * MB:
            raise UnreadableImage("a decoder's error")
        return honest(content, channels, limits, share)

    monkeypatch.setattr(module, "decode_apart", starved)
    assert read(encoded(photo(90, 80), "JPEG2000"))[0].size == (90, 80)


def test_what_needs_more_than_an_image_may_take_is_confined_whatever_its_format():
    content = encoded(Image.new("RGB", (6_000, 6_000)), "PNG")
    with pytest.raises(Refused, match="max_memory_mb"):
        read(content, Reading(limits=Limits(max_memory_mb=64)))


def test_bytes_larger_than_an_image_may_be_are_refused(photo):
    with pytest.raises(Refused, match="max_memory_mb"):
        read(encoded(photo(20, 20), "PNG") + bytes(70 * MB), Reading(limits=Limits(max_memory_mb=64)))


def test_an_array_counts_before_it_is_decoded():
    stream = io.BytesIO()
    np.save(stream, np.zeros((3_000, 3_000, 3), np.uint8))
    with pytest.raises(Refused, match="max_memory_mb"):
        read(stream.getvalue(), Reading(limits=Limits(max_memory_mb=64)))


def test_large_files_are_in_memory_one_at_a_time(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 100)
    photo(20, 20).save(tmp_path / "a.png")
    other = threading.Event()

    def second():
        with content_of(tmp_path / "a.png", Limits()):
            other.set()

    with content_of(tmp_path / "a.png", Limits()):
        thread = threading.Thread(target=second)
        thread.start()
        assert not other.wait(0.05)
    assert other.wait(10)
    thread.join()


@pytest.mark.parametrize("pixels", [np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint16)])
def test_a_large_image_is_freed_before_its_share_of_the_memory_is(pixels, monkeypatch):
    content = encoded(Image.fromarray(pixels), "PNG")
    monkeypatch.setattr(module, "LARGE", 4 * 40 * 40 - 1)
    with pytest.raises(ValueError, match="closed image"):
        read(content)[0].getpixel((0, 0))
    monkeypatch.setattr(module, "LARGE", 4 * 40 * 40)
    assert not np.asarray(read(content)[0]).any()


@pytest.mark.parametrize(("large", "given_back"), [(100, 1), (10**9, 0)])
def test_freed_memory_is_given_back_before_a_large_image(photo, monkeypatch, large, given_back):
    calls = []
    monkeypatch.setattr(module, "LARGE", large)
    monkeypatch.setattr(module, "give_back", lambda: calls.append(1))
    read(encoded(photo(20, 20), "PNG"))
    assert len(calls) == given_back


@pytest.mark.parametrize(
    ("image", "limits", "key"),
    [
        (Image.new("RGB", (60, 60)), Limits(max_pixels=3_000), "max_pixels"),
        (Image.new("RGB", (16, 400)), Limits(max_aspect_ratio=20), "max_aspect_ratio"),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG2000"])
def test_an_image_beyond_a_limit_is_refused_by_name_in_either_process(image, limits, key, form):
    with pytest.raises(Refused, match=f"preprocess.{key}"):
        read(encoded(image, form), Reading(limits=limits))


def test_a_file_larger_than_an_image_may_be_is_not_read(tmp_path):
    with (tmp_path / "a.bmp").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(DataError, match="max_memory_mb"), Reading().file(tmp_path / "a.bmp"):
        pass


def test_a_huge_jpeg_is_decoded_at_half_its_size_or_less(monkeypatch, photo):
    assert SCALED_FROM == 100_000_000
    monkeypatch.setattr("graft.tasks.common.images.formats.SCALED_FROM", 10_000)
    content = encoded(photo(200, 100), "JPEG")
    assert read(content)[0].size == (100, 50)
    assert read(encoded(photo(200, 100), "PNG"))[0].size == (200, 100)


def test_heic_without_its_library_is_refused_with_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr("graft.tasks.common.images.formats.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"graft\[heic\]"):
        read(HEIC)


def test_a_reading_survives_json(tmp_path):
    reading = Reading(1, (0.0, 4095.0), Limits(max_pixels=5))
    reading.save(tmp_path)
    assert Reading.load(tmp_path) == reading


def test_a_folder_of_an_earlier_version_is_read_as_then(tmp_path):
    assert Reading.load(tmp_path) == Reading()


def test_one_range_is_applied_to_all_images():
    dark, bright = (np.full((4, 4), value, np.uint16) for value in (100, 4000))
    pixels = [
        np.asarray(read(encoded(Image.fromarray(one), "PNG"), Reading(1, (0, 4095)))[0])[0, 0] for one in (dark, bright)
    ]
    assert pixels == [6, 250]


def test_what_is_no_image_is_told_from_what_is_refused():
    with pytest.raises(UnreadableImage) as caught:
        read(b"text")
    assert not isinstance(caught.value, Refused)


def test_what_may_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(Refused, match="not a file"), content_of(path, Limits()):
            pass
