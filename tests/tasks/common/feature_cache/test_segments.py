import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.feature_cache import segments as module
from graft.tasks.common.feature_cache.segments import (
    FeatureCache,
    NotFinite,
    compact,
    count_images,
    damage,
    ids_in,
    ids_of,
)

D = 6


def ids(numbers):
    return ids_of([hashlib.md5(str(n).encode()).hexdigest() for n in numbers])


def features(numbers):
    return np.stack([np.random.default_rng(n).normal(size=D).astype(np.float32) for n in numbers])


def fill(folder, numbers, **options):
    with FeatureCache(folder, D, **options) as cache:
        cache.add(ids(numbers), features(numbers))


def segments(folder):
    return sorted(folder.glob("*.safetensors"))


def read(folder, numbers, **options):
    """number -> its features, of those that the cache gives."""
    found = {}
    for places, block in FeatureCache(folder, D, **options).read(ids(numbers)):
        found |= {numbers[place]: row for place, row in zip(places, block, strict=True)}
    return found


def test_what_was_added_survives_reopening(tmp_path):
    fill(tmp_path, range(5))
    found = read(tmp_path, [3, 1, 4])
    assert sorted(found) == [1, 3, 4]
    assert all(np.array_equal(found[n], features([n])[0]) for n in found)


def test_only_what_was_added_is_there(tmp_path):
    fill(tmp_path, [1, 3])
    assert list(FeatureCache(tmp_path, D).has(ids([0, 1, 2, 3, 4]))) == [False, True, False, True, False]
    assert list(read(tmp_path, [0, 1, 2])) == [1]


def test_an_empty_cache_has_nothing(tmp_path):
    assert not FeatureCache(tmp_path, D).has(ids([1])).any()
    assert read(tmp_path, [1]) == {}


def test_an_id_that_is_asked_for_twice_is_given_twice(tmp_path):
    fill(tmp_path, [1, 2])
    ((places, block),) = FeatureCache(tmp_path, D).read(ids([1, 2, 1]))
    assert sorted(places) == [0, 1, 2]
    assert np.array_equal(*block[places != 1])


def test_a_later_run_appends_and_leaves_earlier_segments_alone(tmp_path):
    fill(tmp_path, [1, 2])
    (first,) = segments(tmp_path)
    before = first.read_bytes()
    fill(tmp_path, [3])
    assert first.read_bytes() == before
    assert len(segments(tmp_path)) == 2
    assert sorted(read(tmp_path, [1, 2, 3])) == [1, 2, 3]


def test_nothing_new_writes_nothing(tmp_path):
    with FeatureCache(tmp_path, D):
        pass
    assert segments(tmp_path) == []


def test_a_full_segment_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 3)
    cache = FeatureCache(tmp_path, D)
    for n in range(4):
        cache.add(ids([n]), features([n]))
    assert sorted(read(tmp_path, range(4))) == [0, 1, 2]


def test_a_segment_of_large_features_holds_fewer_images(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 3 * D * 4)
    cache = FeatureCache(tmp_path, D)
    for n in range(0, 10, 5):
        cache.add(ids(range(n, n + 5)), features(range(n, n + 5)))
    assert sorted(read(tmp_path, range(10))) == list(range(10))
    assert sorted(len(module._read_ids(segment)) for segment in segments(tmp_path)) == [2, 2, 3, 3]


def test_segments_of_large_features_are_merged_up_to_the_limit(tmp_path, monkeypatch):
    for n in range(8):
        fill(tmp_path, [n])
    monkeypatch.setattr(module, "SEGMENT_BYTES", 3 * segments(tmp_path)[0].stat().st_size)
    assert module.compact(tmp_path) == 5
    assert sorted(read(tmp_path, range(8))) == list(range(8))


def test_a_slow_segment_is_written_before_it_is_full(tmp_path):
    FeatureCache(tmp_path, D, every=0.0).add(ids([1]), features([1]))
    assert list(read(tmp_path, [1])) == [1]


def test_a_segment_is_named_by_its_content(tmp_path):
    fill(tmp_path / "one", range(3))
    fill(tmp_path / "two", range(3))
    assert [s.name for s in segments(tmp_path / "one")] == [s.name for s in segments(tmp_path / "two")]


def test_half_precision_takes_half_the_space_and_rounds(tmp_path):
    fill(tmp_path / "half", range(500), dtype="float16")
    fill(tmp_path / "full", range(500))
    sizes = [segments(tmp_path / name)[0].stat().st_size - 500 * 16 for name in ("half", "full")]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.05)
    row = read(tmp_path / "half", [7], dtype="float16")[7]
    assert row.dtype == np.float16
    assert np.allclose(row, features([7])[0], rtol=1e-3)


def flip(segment, place):
    content = bytearray(segment.read_bytes())
    content[place] ^= 0x10
    segment.write_bytes(content)


def place_of(segment, what):
    """A byte in the segment's header, features or ids."""
    content = segment.read_bytes()
    if what == "header":
        return 12
    return content.index(ids([1]).tobytes() if what == "ids" else features([1]).tobytes())


@pytest.mark.parametrize("what", ["header", "features"])
def test_a_segment_with_a_flipped_byte_is_named_and_dropped(tmp_path, capsys, what):
    fill(tmp_path, [1])
    (damaged,) = segments(tmp_path)
    flip(damaged, place_of(damaged, what))
    fill(tmp_path, [2])
    assert list(read(tmp_path, [1, 2])) == [2]
    assert damaged.name in capsys.readouterr().err
    assert not damaged.exists()


def test_an_id_with_a_flipped_byte_finds_nothing_and_spoils_what_is_beside_it(tmp_path, capsys):
    fill(tmp_path, [1, 2])
    (damaged,) = segments(tmp_path)
    flip(damaged, place_of(damaged, "ids"))
    assert read(tmp_path, [1]) == {}
    assert damage(damaged)
    assert read(tmp_path, [2]) == {}
    assert damaged.name in capsys.readouterr().err


@pytest.mark.parametrize("place", range(0, 200, 7))
def test_every_flipped_byte_is_damage(tmp_path, place):
    fill(tmp_path, [1])
    (damaged,) = segments(tmp_path)
    flip(damaged, place % damaged.stat().st_size)
    assert damage(damaged)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")])
def test_features_that_are_no_numbers_are_refused(tmp_path, value, dtype):
    with pytest.raises(NotFinite, match="not finite"), FeatureCache(tmp_path, D, dtype) as cache:
        cache.add(ids([1]), np.full((1, D), value, np.float32))
    assert segments(tmp_path) == []


def test_counting_looks_and_drops_nothing(tmp_path, capsys):
    fill(tmp_path, [1, 2])
    fill(tmp_path, [2, 3])
    cut = segments(tmp_path)[0]
    assert count_images(tmp_path) == 3
    cut.write_bytes(cut.read_bytes()[:40])
    assert count_images(tmp_path) == 2
    assert cut.exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("length", [0, 7, 60, 150])
def test_a_truncated_segment_is_named_and_dropped(tmp_path, capsys, length):
    fill(tmp_path, [1])
    (damaged,) = segments(tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:length])
    assert read(tmp_path, [1]) == {}
    assert damaged.name in capsys.readouterr().err
    assert not damaged.exists()


def test_a_sound_segment_has_no_damage(tmp_path):
    fill(tmp_path, [1])
    assert damage(segments(tmp_path)[0]) == ""


def test_a_segment_of_another_dimension_is_dropped(tmp_path, capsys):
    fill(tmp_path, [1])
    assert list(FeatureCache(tmp_path, D + 1).read(ids([1]))) == []
    assert "holds 6 features an image, not 7" in capsys.readouterr().err


def test_what_is_missing_is_computed_once_and_given_with_the_rest(tmp_path):
    fill(tmp_path, [1, 2])
    cache, asked, numbers = FeatureCache(tmp_path, D), [], [3, 1, 4, 3, 2]

    def compute(places):
        asked.append([numbers[place] for place in places])
        fill(tmp_path, asked[-1])
        cache.refresh()

    found_ND = np.empty((len(numbers), D), np.float32)
    for places, block in cache.read_all(ids(numbers), compute):
        found_ND[places] = block
    assert asked == [[3, 4]]
    assert np.array_equal(found_ND, features(numbers))


def test_a_disk_that_never_gives_back_what_was_written_is_named(tmp_path):
    cache, rounds = FeatureCache(tmp_path, D), []

    def compute(places):
        rounds.append(len(places))
        fill(tmp_path, [1])
        flip(segments(tmp_path)[0], -1)
        cache.refresh()

    with pytest.raises(GraftError, match="does not give back") as caught:
        list(cache.read_all(ids([1]), compute))
    assert rounds == [1, 1, 1]
    assert caught.value.got == "1 of 1 rows were damaged 3 times"


def test_a_segment_that_another_process_removed_is_not_called_damaged(tmp_path, capsys):
    fill(tmp_path, [1])
    cache = FeatureCache(tmp_path, D)
    segments(tmp_path)[0].unlink()
    assert list(cache.read(ids([1]))) == []
    assert capsys.readouterr().err == ""


def test_what_another_process_added_is_seen_after_a_refresh(tmp_path):
    cache = FeatureCache(tmp_path, D)
    fill(tmp_path, [1])
    cache.refresh()
    assert cache.has(ids([1])).all()


def test_several_writers_at_once_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 2)

    def write(worker):
        with FeatureCache(tmp_path, D) as cache:
            for n in range(40):
                cache.add(ids([n]), features([n]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = read(tmp_path, list(range(40)))
    assert all(np.array_equal(found[n], features([n])[0]) for n in range(40))


def add_and_fail(folder, numbers):
    def work():
        with FeatureCache(folder, D) as cache:
            cache.add(ids(numbers), features(numbers))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()


def test_an_exception_in_the_block_still_writes_what_was_added(tmp_path):
    add_and_fail(tmp_path, [1])
    assert list(read(tmp_path, [1])) == [1]


def test_a_writer_killed_while_writing_leaves_no_segment(tmp_path, repository):
    program = (
        "import os, pathlib, sys, numpy as np\n"
        "from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "with FeatureCache(folder, 6) as cache:\n"
        "    cache.add(ids_of(['0' * 32]), np.zeros((1, 6), np.float32))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=repository)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1  # the part, which is no segment
    assert len(FeatureCache(tmp_path, D)) == 0


def fill_one_by_one(folder, numbers):
    for n in numbers:
        with FeatureCache(folder, D) as cache:
            cache.add(ids([n]), features([n]))


def all_there(folder, numbers):
    found = read(folder, list(numbers))
    return len(found) == len(numbers) and all(np.array_equal(found[n], features([n])[0]) for n in numbers)


def test_small_segments_are_merged_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 8)
    fill_one_by_one(tmp_path, range(10))
    assert compact(tmp_path) == 8
    assert sorted(len(module._read_ids(segment)) for segment in segments(tmp_path)) == [2, 8]
    assert all(damage(segment) == "" for segment in segments(tmp_path))
    assert all_there(tmp_path, range(10))


def test_large_segments_are_left_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 8)
    fill(tmp_path, range(5))
    fill(tmp_path, range(5, 12))
    before = segments(tmp_path)
    assert compact(tmp_path) == 0
    assert segments(tmp_path) == before


def test_an_image_of_several_segments_is_kept_once(tmp_path):
    fill(tmp_path, [1, 2])
    fill(tmp_path, [2, 3])
    compact(tmp_path)
    assert len(module._read_ids(segments(tmp_path)[0])) == 3
    assert all_there(tmp_path, [1, 2, 3])


def test_many_small_segments_are_merged_when_a_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MANY", 3)
    fill_one_by_one(tmp_path, range(3))
    assert len(segments(tmp_path)) == 3
    fill_one_by_one(tmp_path, [3])
    assert len(segments(tmp_path)) == 1
    assert all_there(tmp_path, range(4))


def test_a_run_that_fails_merges_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MANY", 1)
    fill(tmp_path, [1])

    add_and_fail(tmp_path, [2])
    assert len(segments(tmp_path)) == 2


def test_a_damaged_segment_is_not_merged_and_is_named_when_it_is_read(tmp_path, capsys):
    fill_one_by_one(tmp_path, [1, 2, 3])
    damaged = next(one for one in segments(tmp_path) if ids([2]).tobytes() in one.read_bytes())
    flip(damaged, damaged.read_bytes().index(features([2]).tobytes()))
    assert compact(tmp_path) == 1
    assert capsys.readouterr().err == ""
    assert sorted(read(tmp_path, [1, 2, 3])) == [1, 3]
    assert damaged.name in capsys.readouterr().err


def test_a_segment_of_another_dimension_is_not_merged(tmp_path):
    fill(tmp_path, [1])
    for n in (2, 3):
        with FeatureCache(tmp_path, D + 1) as cache:
            cache.add(ids([n]), np.full((1, D + 1), n, np.float32))
    compact(tmp_path)
    shapes = sorted(module._verified(segment)[1]["features"].shape for segment in segments(tmp_path))
    assert shapes in ([(1, D), (2, D + 1)], [(1, D), (1, D + 1), (1, D + 1)])


def test_a_reader_with_an_older_listing_computes_nothing_again(tmp_path):
    fill_one_by_one(tmp_path, range(4))
    cache, found = FeatureCache(tmp_path, D), {}
    compact(tmp_path)

    def compute(places):
        raise AssertionError("what was merged is not missing")

    for places, block in cache.read_all(ids(range(4)), compute):
        found |= {int(place): row for place, row in zip(places, block, strict=True)}
    assert all(np.array_equal(found[n], features([n])[0]) for n in range(4))


def test_a_listing_during_a_merge_misses_nothing(tmp_path, monkeypatch):
    fill_one_by_one(tmp_path, range(4))
    original, merged = module._read_ids, []

    def read_ids(segment):
        if not merged:
            merged.append(True)
            compact(tmp_path)  # another process's, after this one has listed the folder
        return original(segment)

    monkeypatch.setattr(module, "_read_ids", read_ids)
    assert FeatureCache(tmp_path, D).has(ids(range(4))).all()


def test_merges_and_writers_at_once_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 8)
    monkeypatch.setattr(module, "MANY", 2)

    def work(worker):
        for n in range(6):
            fill(tmp_path, [6 * worker + n])
            compact(tmp_path)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert all_there(tmp_path, range(18))


KILLED = """
import os, pathlib, sys
from graft.tasks.common.feature_cache import segments
pathlib.Path.unlink = lambda *_, **__: os._exit(9)
segments.compact(pathlib.Path(sys.argv[1]))
"""


def test_a_merge_killed_before_it_removes_anything_loses_nothing(tmp_path, repository):
    fill_one_by_one(tmp_path, range(4))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=repository)
    assert done.returncode == 9
    assert len(segments(tmp_path)) == 5
    assert all_there(tmp_path, range(4))
    assert count_images(tmp_path) == 4
    compact(tmp_path)
    assert len(segments(tmp_path)) == 1
    assert all_there(tmp_path, range(4))


def test_the_ids_of_a_segment_are_read_without_its_features(tmp_path):
    ids = ids_of([f"{number:032x}" for number in range(40)])
    with FeatureCache(tmp_path, 64) as cache:
        cache.add(ids, np.ones((40, 64), np.float32))
    (segment,) = tmp_path.glob("*.safetensors")
    with segment.open("rb") as file:
        assert (ids_in(file) == ids).all()
    for content in (b"", segment.read_bytes()[:60], b"no segment" * 20):
        (tmp_path / "other").write_bytes(content)
        with (tmp_path / "other").open("rb") as file:
            assert not len(ids_in(file))
