import io
import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images import sandbox
from graft.tasks.common.images.decode import decode_here
from graft.tasks.common.images.limits import MB, Limits
from graft.tasks.common.images.sandbox import Share, decode_apart
from graft.tasks.common.images.unreadable import Refused, TooLittle, UnreadableImage, WrongForm


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def deep(photo):
    return Image.fromarray(np.asarray(photo(40, 30).convert("L")).astype(np.uint16) * 17)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [lambda photo: photo(40, 30), lambda photo: photo(40, 30).quantize(9), deep])
def test_the_pixels_are_those_of_this_process(photo, make, channels):
    content = encoded(make(photo), "PNG")
    here, apart = (decode(content, channels, Limits()) for decode in (decode_here, decode_apart))
    assert (apart.mode, apart.palette) == (here.mode, here.palette)
    assert [(a.mode, a.tobytes()) for a in apart.picture] == [(b.mode, b.tobytes()) for b in here.picture]


def test_errors_are_those_of_this_process(photo):
    with pytest.raises(WrongForm, match="needed 5"):
        decode_apart(encoded(photo(8, 8), "PNG"), 5, Limits())
    with pytest.raises(UnreadableImage, match="cannot identify"):
        decode_apart(b"text", 3, Limits())


def test_a_process_is_used_again(photo, monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    for _ in range(3):
        decode_apart(encoded(photo(8, 8), "PNG"), 3, Limits())
    assert len(sandbox._idle) == 1


def test_memory_beyond_the_limit_is_refused_by_name():
    content = encoded(Image.new("RGB", (6_000, 6_000)), "PNG")
    with pytest.raises(Refused, match="max_memory_mb"):
        decode_apart(content, 3, Limits(max_memory_mb=64))


def test_a_share_that_is_too_small_is_told_from_a_limit(photo):
    content = encoded(Image.new("RGB", (3_000, 3_000)), "PNG")
    with pytest.raises(TooLittle) as caught:
        decode_apart(content, 3, Limits(), Share(8 * MB, 5.0))
    assert 0 <= caught.value.seconds < 5
    assert decode_apart(content, 3, Limits(), Share(256 * MB, 5.0)).picture[0].size == (3_000, 3_000)


def test_the_file_counts_as_memory(monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    content = encoded(Image.new("RGB", (3_000, 3_000)), "PNG")
    assert decode_apart(content, 3, Limits(), Share(80 * MB, 5.0)).mode == "RGB"
    with pytest.raises(TooLittle):
        decode_apart(content + bytes(60 * MB), 3, Limits(), Share(80 * MB, 5.0))


def test_memory_is_bounded_for_decoding_and_not_for_sending(monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    content = encoded(Image.new("RGB", (4_000, 4_000)), "PNG")
    for megabytes in range(56, 80, 4):  # near what it needs; an answer that stops half-way would never end
        try:
            assert decode_apart(content, 3, Limits(), Share(megabytes * MB, 5.0)).picture[0].size == (4_000, 4_000)
        except TooLittle:
            assert sandbox._idle


def test_a_fraction_of_a_second_is_not_rounded_up(photo, monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    content = encoded(photo(3_000, 2_000), "QOI")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(Refused, match="max_seconds"):
        decode_apart(content, 3, Limits(max_seconds=0.05))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8  # starting takes the most of it


def test_the_time_of_one_image_does_not_count_for_the_next(photo, monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    content = encoded(photo(300, 200), "QOI")
    for _ in range(8):
        assert decode_apart(content, 3, Limits(max_seconds=0.5)).mode == "RGB"
    assert len(sandbox._idle) == 1


def test_an_image_that_takes_too_long_is_refused_by_name(photo):
    content = encoded(photo(3_000, 2_000), "QOI")  # its decoder is written in Python: many seconds
    with pytest.raises(Refused, match="max_seconds"):
        decode_apart(content, 3, Limits(max_seconds=0.05))


def test_a_process_that_crashes_takes_only_its_image_with_it(photo, monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])
    decode_apart(encoded(photo(8, 8), "PNG"), 3, Limits())
    os.kill(sandbox._idle[0]._process.pid, signal.SIGSEGV)
    with pytest.raises(UnreadableImage, match="crashes the library"):
        decode_apart(encoded(photo(8, 8), "PNG"), 3, Limits())
    assert decode_apart(encoded(photo(8, 8), "PNG"), 3, Limits()).picture[0].size == (8, 8)


def test_a_process_that_ends_while_it_sends_leaves_no_pixels_in_the_error(photo, monkeypatch):
    monkeypatch.setattr(sandbox, "_idle", [])

    def cut(worker, mode, size):
        raise EOFError

    monkeypatch.setattr(sandbox._Worker, "_image", cut)
    monkeypatch.setattr(sandbox._Worker, "_why", lambda worker, limits: Refused("it has ended"))
    with pytest.raises(Refused, match="it has ended") as caught:
        decode_apart(encoded(photo(8, 8), "PNG"), 3, Limits())
    assert caught.value.__context__ is None
