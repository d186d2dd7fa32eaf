import hashlib
import subprocess
import sys

import numpy as np
import pytest

from tasks.common import cache as module
from tasks.common.cache import FeatureCache

D = 6


def image_id(n):
    return hashlib.md5(str(n).encode()).hexdigest()


def features(n):
    return np.random.default_rng(n).normal(size=D).astype(np.float32)


def fill(folder, numbers):
    with FeatureCache(folder, D) as cache:
        for n in numbers:
            cache.add(image_id(n), features(n))


def segments(folder):
    return sorted(folder.glob("*.safetensors"))


def test_what_was_added_survives_reopening(tmp_path):
    fill(tmp_path, range(5))
    again = FeatureCache(tmp_path, D)
    assert all(np.array_equal(again[image_id(n)], features(n)) for n in range(5))


def test_what_was_added_can_be_read_before_it_is_written(tmp_path):
    cache = FeatureCache(tmp_path, D)
    cache.add(image_id(1), features(1))
    assert np.array_equal(cache[image_id(1)], features(1))


def test_an_image_that_was_not_added_is_not_in_it(tmp_path):
    fill(tmp_path, [1])
    assert image_id(2) not in FeatureCache(tmp_path, D)


def test_a_later_run_appends_and_leaves_earlier_segments_alone(tmp_path):
    fill(tmp_path, [1, 2])
    (first,) = segments(tmp_path)
    before = first.read_bytes()
    fill(tmp_path, [3])
    assert first.read_bytes() == before
    assert len(segments(tmp_path)) == 2
    assert all(image_id(n) in FeatureCache(tmp_path, D) for n in (1, 2, 3))


def test_nothing_new_writes_nothing(tmp_path):
    fill(tmp_path, [])
    assert segments(tmp_path) == []


def test_a_full_segment_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 3)
    cache = FeatureCache(tmp_path, D)
    for n in range(4):
        cache.add(image_id(n), features(n))
    assert [image_id(n) in FeatureCache(tmp_path, D) for n in range(4)] == [True, True, True, False]


def test_a_segment_is_named_by_its_content(tmp_path):
    fill(tmp_path / "one", range(3))
    fill(tmp_path / "two", range(3))
    assert [s.name for s in segments(tmp_path / "one")] == [s.name for s in segments(tmp_path / "two")]


@pytest.mark.parametrize("place", [4, -3])
def test_a_segment_with_a_flipped_byte_is_named_and_dropped(tmp_path, capsys, place):
    fill(tmp_path, [1])
    fill(tmp_path, [2])
    damaged = segments(tmp_path)[0]
    content = bytearray(damaged.read_bytes())
    content[place] ^= 0x10
    damaged.write_bytes(content)
    again = FeatureCache(tmp_path, D)
    assert damaged.name in capsys.readouterr().err
    assert not damaged.exists()
    assert sum(image_id(n) in again for n in (1, 2)) == 1


@pytest.mark.parametrize("length", [0, 7, 60])
def test_a_truncated_segment_is_named_and_dropped(tmp_path, capsys, length):
    fill(tmp_path, [1])
    (damaged,) = segments(tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:length])
    assert image_id(1) not in FeatureCache(tmp_path, D)
    assert "damaged" in capsys.readouterr().err
    assert not damaged.exists()


def test_a_segment_of_another_dimension_is_dropped(tmp_path):
    fill(tmp_path, [1])
    assert image_id(1) not in FeatureCache(tmp_path, D + 1)


def test_an_exception_in_the_block_still_writes_what_was_added(tmp_path):
    def work():
        with FeatureCache(tmp_path, D) as cache:
            cache.add(image_id(1), features(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert image_id(1) in FeatureCache(tmp_path, D)


def test_a_writer_killed_while_writing_leaves_no_segment(tmp_path, repository):
    program = (
        "import os, pathlib, sys, numpy as np\n"
        "from tasks.common.cache import FeatureCache\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "with FeatureCache(folder, 6) as cache:\n"
        "    cache.add('0' * 32, np.zeros(6, np.float32))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=repository)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1  # the part, which is no segment
    assert "0" * 32 not in FeatureCache(tmp_path, D)
