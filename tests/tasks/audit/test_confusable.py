import tracemalloc

import numpy as np

from graft.tasks.audit import confusable as module
from graft.tasks.audit.confusable import COLUMNS, confusable


def mixed_up(pack, rows, p_NK):
    return module.mixed_up(pack, rows, p_NK, np.arange(len(rows)))


def said(codes, k=3):
    return np.eye(k)[codes] * 0.9 + 0.05


def table_of(pack_of, given, codes):
    names = np.array(list("abc"))
    return mixed_up(pack_of(np.zeros((len(given), 2)), names[given]), np.arange(len(given)), said(codes))


def test_classes_that_are_taken_for_each_other_are_a_pair(pack_of):
    given = np.repeat([0, 1, 2], 100)
    codes = given.copy()
    codes[:30], codes[100:120] = 1, 0
    (pair,) = confusable(table_of(pack_of, given, codes), 0.05).itertuples(index=False)
    assert (pair[0], pair.other_class) == ("a", "b")
    assert (pair.images, pair.taken, pair.taken_for_other) == (200, 50, 30)
    assert pair.share == 0.25
    assert 0.05 < pair.low < 0.25 < pair.high


def test_two_images_do_not_make_a_pair(pack_of):
    given = np.repeat([0, 1, 2], 6)
    codes = given.copy()
    codes[0], codes[6] = 1, 0
    table = table_of(pack_of, given, codes)
    assert table["share"].tolist() == [2 / 12]
    assert confusable(table, 0.05).empty


def test_a_small_share_of_very_many_is_no_pair(pack_of):
    given = np.repeat([0, 1, 2], 3000)
    codes = given.copy()
    codes[:100] = 1
    assert confusable(table_of(pack_of, given, codes), 0.05).empty


def test_the_worst_pair_comes_first(pack_of):
    given = np.repeat([0, 1, 2], 100)
    codes = given.copy()
    codes[:20], codes[100:160] = 1, 2
    assert list(table_of(pack_of, given, codes)["other_class"]) == ["c", "b"]


def test_images_of_which_nothing_is_known_do_not_count(pack_of):
    given = np.repeat([0, 1], 50)
    codes = given.copy()
    codes[:25] = 1
    p_NK = said(codes)
    p_NK[:20] = np.nan
    table = mixed_up(pack_of(np.zeros((100, 2)), np.array(list("ab"))[given]), np.arange(100), p_NK[:, :2])
    assert table.loc[0, ["images", "taken"]].tolist() == [80, 5]


def test_of_several_classes_only_images_of_one_of_the_two_count(pack_of):
    labels = ["a", "a", "a|b", "b", "b|c", ""]
    p_NK = np.array(
        [[0.1, 0.9, 0.1], [0.9, 0.1, 0.1], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.9, 0.1, 0.9], [0.9, 0.1, 0.1]]
    )
    table = mixed_up(pack_of(np.zeros((6, 2)), labels, task="multilabel"), np.arange(6), p_NK)
    pair = table[(table["class"] == "a") & (table["other_class"] == "b")].iloc[0]
    assert (pair["images"], pair["taken"], pair["taken_for_other"]) == (4, 2, 1)


def test_no_mistake_is_an_empty_table_with_its_columns(pack_of):
    table = table_of(pack_of, np.array([0, 1, 2]), np.array([0, 1, 2]))
    assert list(table.columns) == COLUMNS
    assert confusable(table, 0.05).empty


def test_memory_for_very_many_classes_is_that_of_their_pairs_and_not_of_the_images(pack_of):
    names = np.array([f"c{k:03}" for k in range(200)])
    codes = np.arange(20_000) % 200
    pack = pack_of(np.zeros((20_000, 2)), names[codes])
    p_NK = np.zeros((20_000, 200), np.float32)
    p_NK[np.arange(20_000), codes ^ (codes < 2)] = 1
    rows = np.arange(20_000)
    pack.targets(rows)
    tracemalloc.start()
    table = mixed_up(pack, rows, p_NK)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table[["class", "other_class", "images", "taken"]].to_numpy().tolist() == [["c000", "c001", 200, 200]]
    assert most < 2.5 * p_NK.nbytes


def test_images_of_one_unit_count_as_little_as_they_tell(pack_of):
    given = np.repeat([0, 1], 50)
    codes = np.where(np.arange(100) % 50 < 10, 1 - given, given)
    pack, p_NK = pack_of(np.zeros((100, 2)), np.array(list("ab"))[given]), said(codes)[:, :2]
    alone = module.mixed_up(pack, np.arange(100), p_NK, np.arange(100)).iloc[0]
    groups = module.mixed_up(pack, np.arange(100), p_NK, np.arange(100) // 10).iloc[0]
    assert alone["share"] == groups["share"] == 0.2
    assert groups["low"] < alone["low"]
    assert groups["high"] > alone["high"]
