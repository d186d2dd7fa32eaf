import io
import os
import signal

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.images import sandbox
from graft.tasks.common.images.decode import decode_here
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.sandbox import decode_apart
from graft.tasks.common.images.unreadable import Refused, UnreadableImage, WrongForm


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
