import numpy as np
import pandas as pd
import pytest

from graft.tasks.audit import outliers as module
from graft.tasks.audit.outliers import COLUMNS, far_off, neighbour, outliers
from graft.tasks.audit.page import _nearest
from graft.tasks.common.solvers import neighbours


def around(direction, count, spread, seed=0):
    rng = np.random.default_rng(seed)
    return np.eye(32)[direction] + spread * rng.normal(size=(count, 32))


def test_an_image_far_from_all_others_is_an_outlier(pack_of):
    pack = pack_of(np.vstack([around(0, 60, 0.05), around(1, 1, 0.05)]), ["a"] * 61)
    found = outliers(far_off(pack, 0), 3.5)
    assert list(found["path"]) == ["0060.png"]
    assert list(found.columns) == COLUMNS


def test_images_of_one_kind_have_no_outlier(pack_of):
    assert outliers(far_off(pack_of(around(0, 100, 0.05), ["a"] * 100), 0), 3.5).empty


def test_a_few_strangers_who_are_alike_do_not_vouch_for_each_other(pack_of):
    pack = pack_of(np.vstack([around(0, 200, 0.05), around(1, 9, 0.001)]), ["a"] * 209)
    assert set(outliers(far_off(pack, 0), 3.5)["path"]) == {f"{i:04}.png" for i in range(200, 209)}


def test_classes_of_few_images_are_not_far_from_each_other(pack_of):
    pack = pack_of(np.vstack([around(k, 7, 0.05, seed=k) for k in range(5)]), np.repeat(list("abcde"), 7))
    assert outliers(far_off(pack, 0), 3.5).empty


def test_the_distance_is_that_to_the_tenth_nearest(pack_of):
    x_ND = around(0, 200, 0.2)
    table = far_off(pack_of(x_ND, ["a"] * 200), 0)
    unit = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    cosines = np.sort(unit @ unit.T, axis=1)[:, ::-1]
    assert np.allclose(table["distance"], 1 - cosines[:, 10], atol=1e-4)
    assert np.allclose(table["cosine"], cosines[:, 1], atol=1e-4)


def test_the_nearest_image_is_named(pack_of):
    x_ND = around(0, 40, 0.2)
    x_ND[7] = x_ND[30]
    assert far_off(pack_of(x_ND, ["a"] * 40), 0)["nearest"].iloc[[7, 30]].tolist() == ["0030.png", "0007.png"]


def test_labels_and_splits_have_no_part_in_it(pack_of):
    x_ND = around(0, 40, 0.2)
    one, other = (
        far_off(pack_of(x_ND, ["a"] * 40), 0),
        far_off(pack_of(x_ND, list("ab") * 20, split=["train", "test"] * 20), 0),
    )
    assert one["score"].equals(other["score"])


def test_of_very_many_images_a_sample_is_compared_with(pack_of, monkeypatch):
    monkeypatch.setattr(module, "COMPARED", 50)
    pack = pack_of(np.vstack([around(0, 400, 0.05), around(1, 1, 0.05)]), ["a"] * 401)
    table = far_off(pack, 3)
    assert outliers(table, 3.5)["path"].iloc[0] == "0400.png"
    assert table["nearest"].nunique() <= 50


@pytest.mark.parametrize("n", [2, 3, 11])
def test_few_images_are_compared_with_as_many_as_there_are(pack_of, n):
    table = far_off(pack_of(around(0, n, 0.05), ["a"] * n), 0)
    assert table["distance"].between(0, 2).all()


def test_images_that_are_all_the_same_have_no_outlier(pack_of):
    assert outliers(far_off(pack_of(np.ones((20, 4)), ["a"] * 20), 0), 3.5).empty


def test_the_neighbour_of_few_images_is_nearer_and_the_page_names_it():
    assert [neighbour(n) for n in (5, 60, 199, 200, 10_000)] == [1, 3, 9, 10, 10]
    assert [_nearest(k) for k in (1, 2, 3, 10)] == ["nearest", "2nd nearest", "3rd nearest", "10th nearest"]


def test_what_is_written_is_rounded_to_what_any_number_of_threads_gives(pack_of):
    table = far_off(pack_of(around(0, 60, 0.2), ["a"] * 60), 0)
    assert (table["distance"] == table["distance"].round(4)).all()
    assert (table["cosine"] == table["cosine"].round(4)).all()


def test_lossless_copies_do_not_vouch_for_each_other(pack_of):
    rows = np.vstack([around(0, 60, 0.05), around(1, 1, 0.05)])
    once = pack_of(rows, ["a"] * 61)
    twice = pack_of(np.repeat(rows, 2, axis=0), ["a"] * 122)
    twice.index["pixels"] = np.repeat(once.index["pixels"].to_numpy(), 2)
    assert list(outliers(far_off(twice, 0), 3.5)["path"]) == ["0120.png", "0121.png"]
    assert np.allclose(far_off(twice, 0)["distance"][::2], far_off(once, 0)["distance"])


def test_what_an_index_finds_is_what_all_comparisons_find(pack_of, monkeypatch):
    x_ND = np.concatenate([around(0, 300, 0.05), around(5, 300, 0.05), around(1, 9, 0.05), around(3, 2, 0.01)])
    pack = pack_of(x_ND, ["a"] * len(x_ND))
    exact = far_off(pack, 0, 3.5)
    monkeypatch.setattr(neighbours, "EXACT", 100)
    monkeypatch.setattr(neighbours, "PROBES", 2)
    found = far_off(pack, 0, 3.5)

    assert (found["distance"] >= exact["distance"]).all()
    columns = ["path", "distance", "nearest", "cosine"]
    pd.testing.assert_frame_equal(outliers(found, 3.5)[columns], outliers(exact, 3.5)[columns])
    pd.testing.assert_frame_equal(found, far_off(pack, 0, 3.5))
