import io
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from graft.tasks.audit import near_duplicates as module
from graft.tasks.audit.near_duplicates import COLUMNS, find_near_duplicates
from graft.tasks.audit.thumbnails import alike
from graft.tasks.audit.whitening import whitened
from graft.tasks.common.feature_cache.thumbnails import thumbnail_of
from graft.tasks.common.heads.base import unit_length
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.solvers import neighbours


@pytest.fixture(params=[False, True], ids=["all", "index"])
def by_index(request, monkeypatch):
    """Once with all pairs, once with those that an index of every 7 rows before proposes."""
    if request.param:
        monkeypatch.setattr(neighbours, "EXACT", 1)
        monkeypatch.setattr(module, "DOWN", 7)


@pytest.fixture
def far_apart():
    """far_apart(n) -> n rows of length 1 of which none is near another."""

    def make(n, seed=0):
        return unit_length(np.random.default_rng(seed).normal(size=(n, 64)).astype(np.float32))

    return make


def copy_of(rows, pairs):
    """The same rows, in which the second of each pair is the first."""
    rows = rows.copy()
    for first, second in pairs:
        rows[second] = rows[first]
    return rows


def find(pack, pixels, features, believed=lambda first, second: np.ones(len(first), bool)):
    return find_near_duplicates(pack, pixels, features, 0.95, 0.9, believed)


def pairs_of(table):
    return [(int(row.path[:4]), int(row.other_path[:4])) for row in table.itertuples()]


def test_images_that_are_not_alike_are_no_copies(pack_of, far_apart):
    found = find(pack_of(np.zeros((30, 2)), ["a"] * 30), far_apart(30), far_apart(30, 1))
    assert found.count == 0
    assert found.pairs.empty
    assert not found.leaked_N.any()


def test_a_pair_in_two_splits_is_a_leak_of_the_later_one(pack_of, far_apart):
    pack = pack_of(np.zeros((6, 2)), ["a"] * 6, split=["test", "train", "val", "train", "val", "test"])
    found = find(pack, copy_of(far_apart(6), [(0, 1), (2, 3), (4, 5)]), far_apart(6, 1))
    assert pairs_of(found.leaks(pack)) == [(1, 0), (3, 2), (4, 5)]
    assert list(np.flatnonzero(found.leaked_N)) == [0, 2, 5]
    assert list(found.leaks(pack).columns) == COLUMNS
    assert list(found.leaks(pack)["other_split"]) == ["test", "val", "test"]


def test_likeness_of_the_features_alone_will_do(pack_of, far_apart):
    pack = pack_of(np.zeros((4, 2)), ["a"] * 4, split=["train", "train", "test", "test"])
    found = find(pack, far_apart(4), copy_of(far_apart(4, 1), [(1, 3)]))
    assert pairs_of(found.leaks(pack)) == [(1, 3)]
    assert found.leaks(pack)["cosine_features"].iloc[0] == pytest.approx(1)
    assert found.leaks(pack)["cosine_pixels"].iloc[0] < 0.95


def test_likeness_of_the_features_alone_needs_small_versions_that_are_not_unlike(pack_of, far_apart, tmp_path):
    """Of 20 tight classes of five, features tell the class; only the mirrored picture is the same."""
    for i in range(100):
        scene(i).save(tmp_path / f"{i:04}.png")
    scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "0001.png")
    small = np.stack([thumbnail_of(tmp_path / f"{i:04}.png", None, Reading()) for i in range(100)])
    tight = far_apart(20)[np.repeat(np.arange(20), 5)]
    pack = pack_of(np.zeros((100, 2)), ["a"] * 100)
    found = find(pack, whitened(small), unit_length(tight + 0.01 * far_apart(100, 1)), partial(alike, small))
    pairs = set(zip(found.pairs["first"], found.pairs["second"], strict=True))
    assert (0, 1) in pairs
    assert len(pairs) < 20  # of 200 within classes


def test_copies_within_a_split_are_no_leak(pack_of, far_apart):
    pack = pack_of(np.zeros((4, 2)), ["a"] * 4, split=["train", "train", "test", "test"])
    found = find(pack, copy_of(far_apart(4), [(0, 1), (2, 3)]), far_apart(4, 1))
    assert found.count == 2
    assert found.leaks(pack).empty
    assert not found.leaked_N.any()


def test_copies_under_two_labels_are_a_conflict(pack_of, far_apart):
    pack = pack_of(np.zeros((4, 2)), list("abcc"), split=["train", "train", "train", "val"])
    found = find(pack, copy_of(far_apart(4), [(0, 1), (2, 3)]), far_apart(4, 1))
    assert pairs_of(found.conflicts(pack)) == [(0, 1)]
    assert list(np.flatnonzero(found.conflicting_N)) == [0, 1]


def test_labels_of_test_images_are_not_looked_at(pack_of, far_apart):
    pack = pack_of(np.zeros((4, 2)), list("abcd"), split=["train", "test", "test", "test"])
    found = find(pack, copy_of(far_apart(4), [(0, 1), (2, 3)]), far_apart(4, 1))
    assert found.conflicts(pack).empty
    assert not found.conflicting_N.any()


def test_numbers_do_not_conflict(pack_of, far_apart):
    pack = pack_of(np.zeros((2, 2)), [1.0, 1.1], task="regression")
    found = find(pack, copy_of(far_apart(2), [(0, 1)]), far_apart(2, 1))
    assert found.count == 1
    assert not found.conflicting_N.any()
    assert found.conflicts(pack).empty


@pytest.mark.usefixtures("by_index")
def test_every_pair_is_found_once_whatever_the_blocks(pack_of, far_apart, monkeypatch):
    pixels = far_apart(40)
    pixels[::4] = pixels[0]
    pack = pack_of(np.zeros((40, 2)), ["a"] * 40)
    monkeypatch.setattr(module, "DOWN", 7)
    monkeypatch.setattr(module, "ACROSS", 13)
    pairs = find(pack, pixels, far_apart(40, 1)).pairs
    assert sorted(zip(pairs["first"], pairs["second"], strict=True)) == list(combinations(range(0, 40, 4), 2))


@pytest.mark.usefixtures("by_index")
def test_of_too_many_pairs_the_most_alike_are_listed_and_all_are_counted(pack_of, far_apart, monkeypatch):
    rows = far_apart(2)[[0] * 10]
    rows[5:] += 0.01 * far_apart(5, 2)
    monkeypatch.setattr(module, "MOST", 10)
    pack = pack_of(np.zeros((10, 2)), ["a"] * 10, split=["train"] * 5 + ["test"] * 5)
    found = find(pack, unit_length(rows), far_apart(10, 1))
    assert found.count == 45
    assert len(found.pairs) == 20
    assert {(i, j) for i, j in combinations(range(5), 2)} <= set(
        zip(found.pairs["first"], found.pairs["second"], strict=True)
    )
    assert list(np.flatnonzero(found.leaked_N)) == [5, 6, 7, 8, 9]


@pytest.mark.usefixtures("by_index")
def test_very_many_pairs_within_train_hide_no_leak(pack_of, far_apart, monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    rows = far_apart(12)
    rows[:10] = rows[0]
    rows[11] = unit_length(rows[10:11] + 0.02 * far_apart(1, 2))[0]
    pack = pack_of(np.zeros((12, 2)), ["a"] * 12, split=["train"] * 11 + ["test"])
    found = find(pack, rows, far_apart(12, 1))
    assert found.count == 46
    assert pairs_of(found.leaks(pack)) == [(10, 11)]


def test_images_that_leak_are_listed_even_where_their_pairs_are_too_many(pack_of, far_apart, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    rows = far_apart(1)[[0] * 6]
    pack = pack_of(np.zeros((6, 2)), ["a"] * 6, split=["train"] * 3 + ["val", "test", "test"])
    found = find(pack, rows, far_apart(6, 1))
    assert len(found.leaks(pack)) == 2
    assert list(found.leaked(pack)["path"]) == ["0003.png", "0004.png", "0005.png"]
    assert list(found.leaked(pack)["split"]) == ["val", "test", "test"]


def test_the_most_alike_by_either_cosine_come_first(pack_of, far_apart):
    pixels, features = copy_of(far_apart(4), []), copy_of(far_apart(4, 1), [(2, 3)])
    pixels[1] = unit_length(pixels[:1] + 0.2 * pixels[1:2])[0]
    pack = pack_of(np.zeros((4, 2)), ["a"] * 4, split=["train", "test"] * 2)
    assert pairs_of(find(pack, pixels, features).leaks(pack)) == [(2, 3), (0, 1)]


@pytest.mark.usefixtures("by_index")
def test_cosines_are_rounded_before_they_are_compared(pack_of, far_apart):
    rows = far_apart(6)
    rows[3:] = unit_length(rows[:3] + 0.1 * far_apart(3, 5))
    pairs = find(pack_of(np.zeros((6, 2)), ["a"] * 6), rows, far_apart(6, 1)).pairs
    assert (pairs["cosine_pixels"] == pairs["cosine_pixels"].round(4)).all()


def scene(seed, size=96):
    """A made-up photograph: soft blobs of colour in places of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.zeros((size, size, 3))
    for _ in range(8):
        cx, cy, width = *rng.uniform(0, 1, 2), rng.uniform(0.05, 0.3)
        image += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)[..., None] * rng.uniform(-1, 1, 3)
    return Image.fromarray((128 + 60 * image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8))


def saved_again(image, quality, scale):
    image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


@pytest.mark.parametrize(("quality", "scale"), [(95, 1.0), (50, 1.0), (85, 0.75), (85, 1.25)])
def test_pictures_saved_again_are_found_and_no_others(tmp_path, pack_of, far_apart, quality, scale):
    for i in range(40):
        scene(i).save(tmp_path / f"{i:04}.png")
    for i in range(20):
        (tmp_path / f"{40 + i:04}.png").write_bytes(saved_again(scene(i), quality, scale))
    small = np.stack([thumbnail_of(tmp_path / f"{i:04}.png", None, Reading()) for i in range(60)])
    pack = pack_of(np.zeros((60, 2)), ["a"] * 60, split=["train"] * 40 + ["test"] * 20)
    found = find(pack, whitened(small), far_apart(60))
    assert sorted(pairs_of(found.leaks(pack))) == [(i, 40 + i) for i in range(20)]
    assert found.count == 20


@pytest.mark.usefixtures("by_index")
def test_images_that_are_the_same_picture_through_others_are_known_across_blocks(pack_of, far_apart, monkeypatch):
    monkeypatch.setattr(module, "DOWN", 4)
    monkeypatch.setattr(module, "ACROSS", 8)
    pixels, features = far_apart(30), far_apart(30, 1)
    found = find(pack_of(np.zeros((30, 2)), ["a"] * 30), copy_of(pixels, [(1, 20)]), copy_of(features, [(20, 29)]))
    same = {tuple(np.flatnonzero(found.picture_N == code)) for code in np.unique(found.picture_N)}
    assert {members for members in same if len(members) > 1} == {(1, 20, 29)}
    assert len(same) == 28
