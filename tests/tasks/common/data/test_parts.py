import numpy as np
import pytest

from graft.tasks.common.data import parts
from graft.tasks.common.data.feature_set import RowFile
from graft.tasks.common.data.parts import Parts, parts_of, views_part


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", 10)


def test_a_part_has_whole_shards_as_far_as_they_fit():
    assert parts_of(np.repeat([0, 1, 2, 3], [4, 5, 4, 6])).tolist() == [0] * 9 + [1] * 10
    assert parts_of(np.repeat([0, 1], [25, 3])).tolist() == [0] * 10 + [1] * 10 + [2] * 8
    assert parts_of(np.zeros(10, int)) is None


def test_more_shards_change_only_the_last_part_and_add_parts():
    rng = np.random.default_rng(0)
    group_N = rng.permutation(np.repeat(np.arange(9), rng.integers(1, 9, 9)))
    added_M = np.repeat(np.arange(9, 14), 6)
    before, after = parts_of(group_N), parts_of(np.concatenate([group_N, added_M]))
    assert after[: len(before)].tolist() == before.tolist()
    assert set(after[len(before) :]) <= {*range(before.max(), after.max() + 1)}
    assert np.bincount(after).max() <= 10


@pytest.mark.parametrize("mixed", [False, True])
def test_parts_are_the_array_however_they_are_read_and_written(tmp_path, mixed):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(57, 6)).astype(np.float16)
    part_N = parts_of(rng.integers(0, 9, 57) if mixed else np.zeros(57))
    file = RowFile(tmp_path / "a.npy", values.shape, "float16", part_N, part_N.max() + 1)
    for rows in np.array_split(rng.permutation(57), 4):
        for columns in (slice(0, 2), slice(2, 6)):
            file.write(rows, values[rows][:, columns], columns)
    found, some = Parts.load(tmp_path / "a.npy", part_N), rng.permutation(57)[:20]

    assert np.array_equal(np.load(tmp_path / "a-00001.npy"), values[part_N == 1])
    assert (found.shape, found.dtype, len(found)) == ((57, 6), np.float16, 57)
    assert np.array_equal(found, values)
    assert np.array_equal(found[some], values[some])
    assert np.array_equal(found[values[:, 0] > 0], values[values[:, 0] > 0])
    assert np.array_equal(found[11:33:2], values[11:33:2])
    assert np.array_equal(found[:, 2:4][some], values[some, 2:4])
    assert file.mean == pytest.approx(values.astype(np.float64).mean())


def test_views_are_in_the_part_of_their_image(tmp_path):
    part_N, train = parts_of(np.arange(24) % 3), np.arange(0, 24, 5)
    views_VD = np.arange(2 * len(train), dtype=np.float32)[:, None]
    of_views = views_part(part_N, train, 2)
    RowFile(tmp_path / "v.npy", views_VD.shape, "float32", of_views, part_N.max() + 1).write(np.arange(10), views_VD)

    assert np.array_equal(Parts.load(tmp_path / "v.npy", of_views), views_VD)
    first = np.flatnonzero(part_N[train] == 0)
    assert np.load(tmp_path / "v-00000.npy")[:, 0].tolist() == [*first, *(first + len(train))]
