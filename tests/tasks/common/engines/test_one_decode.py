"""Several engines over the same images; the engines here only count the pixels' values."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.common.engines import one_decode
from graft.tasks.common.engines.one_decode import Part, geometry_of, stream_all
from graft.tasks.common.images.transform import EvalTransform

SMALL = EvalTransform(2, 2, 1.0, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
LARGE = replace(SMALL, height=4, width=4)


class Sums:
    """An engine whose only feature is the sum of the pixels; batches of three."""

    def stream(self, load, count, threads=None):
        for start in range(0, count, 3):
            yield start, np.array([[float(load(i).sum())] for i in range(start, min(start + 3, count))], np.float32)


def parts_of(wanted, transforms):
    return [Part(Sums(), transform, np.array(row, bool)) for transform, row in zip(transforms, wanted, strict=True)]


def run(parts):
    """(part -> image -> feature, how often each image was decoded, how often it was cropped)."""
    decoded, cropped, found = Counter(), Counter(), {number: {} for number in range(len(parts))}

    def decode(i):
        decoded[i] += 1
        return nullcontext(i)

    def crop(picture, i, number):
        assert picture == i
        cropped[i] += 1
        return np.full((parts[number].transform.height,) * 2 + (3,), i, np.uint8)

    for number, places, batch in stream_all(parts, decode, crop):
        found[number] |= dict(zip(places.tolist(), batch[:, 0].tolist(), strict=True))
    return found, decoded, cropped


@pytest.mark.parametrize("size", [3, 1000])
def test_each_image_is_decoded_once_and_each_part_gets_its_own_pixels(size, monkeypatch):
    monkeypatch.setattr(one_decode, "block_size", lambda geometries: size)
    found, decoded, _ = run(parts_of([[1] * 10, [1] * 10], [SMALL, LARGE]))
    assert found == {0: {i: 12.0 * i for i in range(10)}, 1: {i: 48.0 * i for i in range(10)}}
    assert decoded == Counter(range(10))


def test_a_part_processes_only_what_it_wants():
    found, decoded, _ = run(parts_of([[1, 0, 0, 1], [0, 1, 0, 1]], [SMALL, LARGE]))
    assert found == {0: {0: 0.0, 3: 36.0}, 1: {1: 48.0, 3: 144.0}}
    assert decoded == Counter([0, 1, 3])


def test_parts_that_differ_in_the_normalisation_alone_share_the_pixels():
    other = replace(SMALL, mean=(0.1,) * 3)
    _, _, cropped = run(parts_of([[1] * 4, [1] * 4], [SMALL, other]))
    assert cropped == Counter(range(4))
    assert geometry_of(replace(other, crop_mode="border")) != geometry_of(replace(SMALL, crop_mode="border"))


def test_no_images_give_nothing():
    assert run(parts_of([[], []], [SMALL, LARGE]))[0] == {0: {}, 1: {}}
