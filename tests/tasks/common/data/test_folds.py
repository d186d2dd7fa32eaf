import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.data.folds import assign


def pack_of(labels, task="classification", groups=None, pixels=None):
    n = len(labels)
    index = pd.DataFrame(
        {
            "image_id": [f"{i:032x}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "label": labels,
            "task": task,
            "split": "train",
            "group": pd.array(groups if groups is not None else [None] * n, "string"),
            "weight": 1.0,
            "pixels": pixels or [f"{i:032x}" for i in range(n)],
        }
    )
    return FeatureSet(np.zeros((n, 2), np.float32), np.zeros((0, 2), np.float32), index, {})


def folds_of(pack, folds=5, seed=0):
    return assign(pack, np.arange(len(pack.index)), folds, seed)


def test_every_image_is_held_out_once():
    assert set(folds_of(pack_of(list("ab") * 20))) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("counts", [(50, 50), (90, 10), (97, 53, 7, 5)])
def test_every_fold_has_its_share_of_each_class(counts):
    labels = np.repeat(list("abcd")[: len(counts)], counts)
    table = pd.crosstab(labels, folds_of(pack_of(labels)))
    for label, count in zip("abcd", counts, strict=False):
        assert table.loc[label].min() >= count // 5
        assert table.loc[label].max() <= -(-count // 5)
    sizes = table.sum()
    assert sizes.max() - sizes.min() <= 2


def test_groups_are_never_torn():
    rng = np.random.default_rng(0)
    groups = [f"g{number}" for number in rng.integers(0, 30, 200)]
    fold_N = folds_of(pack_of(rng.choice(list("ab"), 200), groups=groups))
    assert pd.Series(fold_N).groupby(groups).nunique().max() == 1
    assert np.bincount(fold_N).max() < 1.5 * np.bincount(fold_N).min()


def test_lossless_copies_under_other_formats_are_never_torn():
    pixels = [f"{i // 2:032x}" for i in range(60)]
    fold_N = folds_of(pack_of(["a", "a", "b", "b"] * 15, pixels=pixels))
    assert (fold_N[::2] == fold_N[1::2]).all()


def test_groups_that_share_a_picture_are_never_torn():
    groups = [f"g{i // 4}" for i in range(60)]
    pixels = ["same" if i in (0, 30, 59) else f"{i}" for i in range(60)]
    fold_N = folds_of(pack_of(["a", "b"] * 30, groups=groups, pixels=pixels))
    assert len(set(fold_N[[0, 1, 2, 3, 28, 29, 30, 31, 56, 57, 58, 59]])) == 1


def test_views_are_held_out_with_their_image_and_its_copies():
    pack = pack_of(["a", "a", "b", "b"] * 15, pixels=[f"{i // 2}" for i in range(60)])
    pack = dataclasses.replace(pack, views_VD=np.zeros((120, 2), np.float32))
    fold_N = folds_of(pack)
    for fold in range(5):
        held, learned = (set(pack.with_views(np.flatnonzero(of))[1] // 2) for of in (fold_N == fold, fold_N != fold))
        assert not held & learned


def test_a_class_of_a_single_image_is_always_learned_from():
    fold_N = folds_of(pack_of(["a"] * 20 + ["b"] * 20 + ["c"]))
    assert fold_N[-1] == -1
    assert (fold_N[:-1] >= 0).all()


def test_a_class_of_a_single_group_is_always_learned_from():
    fold_N = folds_of(pack_of(["a"] * 20 + ["b"] * 20 + ["c"] * 4, groups=[None] * 40 + ["one"] * 4))
    assert (fold_N[-4:] == -1).all()


def test_two_images_of_a_class_are_held_out_one_after_the_other():
    fold_N = folds_of(pack_of(["a"] * 20 + ["b"] * 20 + ["c"] * 2))
    assert (fold_N >= 0).all()
    assert fold_N[-1] != fold_N[-2]


def test_whatever_is_held_out_every_class_is_left_to_learn_from():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcdefgh"), 60, p=[0.4, 0.3, 0.1, 0.1, 0.04, 0.02, 0.02, 0.02])
    fold_N = folds_of(pack_of(labels, groups=[f"g{number}" for number in rng.integers(0, 14, 60)]), folds=3)
    for fold in range(3):
        assert set(labels[fold_N != fold]) == set(labels)


def test_of_several_classes_an_image_each_has_its_share():
    rng = np.random.default_rng(0)
    has_NK = rng.random((400, 3)) < [0.5, 0.2, 0.06]
    labels = ["|".join(np.array(list("abc"))[has_K]) for has_K in has_NK]
    fold_N = folds_of(pack_of(labels, "multilabel"))
    for k in range(3):
        held = [has_NK[fold_N == fold, k].sum() for fold in range(5)]
        assert max(held) - min(held) <= 2
    assert np.ptp(np.bincount(fold_N)) <= 8


def test_numbers_are_spread_over_all_folds():
    numbers = np.random.default_rng(0).normal(size=200)
    fold_N = folds_of(pack_of([str(number) for number in numbers], "regression"))
    means = [numbers[fold_N == fold].mean() for fold in range(5)]
    assert np.ptp(means) < 0.1
    assert set(np.bincount(fold_N)) == {40}


def test_the_folds_depend_on_the_seed_and_the_images_and_not_on_their_order():
    labels = np.array(list("ab") * 30)
    pack = pack_of(labels)
    again = FeatureSet(pack.stored_ND, pack.views_VD, pack.index.iloc[::-1].reset_index(drop=True), {})
    assert np.array_equal(folds_of(pack), folds_of(again)[::-1])
    assert not np.array_equal(folds_of(pack), folds_of(pack, seed=1))


def test_classes_of_one_group_each_are_always_learned_from():
    fold_N = folds_of(pack_of(["a"] * 5 + ["b"] * 5, groups=["one"] * 5 + ["two"] * 5))
    assert set(fold_N) == {-1}


def test_many_groups_of_many_classes_need_no_table_of_all_of_them():
    pack = pack_of([f"{i % 500:03}" for i in range(5000)])
    tracemalloc.start()
    fold_N = folds_of(pack)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5000 * 500 * 8 / 2
    assert np.bincount(fold_N).tolist() == [1000] * 5
