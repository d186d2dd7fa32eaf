from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.finetune.lessons import fold_lessons, folds_of, lesson_named, main_lesson, refit_lesson, weighed
from graft.tasks.finetune.params import FinetuneParams

N = 200


@pytest.fixture
def pack():
    """Two classes; ten images a group."""
    index = pd.DataFrame(
        {
            "image_id": [f"{n:032x}" for n in range(N)],
            "path": [f"{n}.png" for n in range(N)],
            "label": np.tile(["a", "b"], N // 2),
            "task": "classification",
            "split": np.repeat(["train", "train", "train", "val", "test"], N // 5),
            "group": [f"g{n // 10}" for n in range(N)],
            "weight": 1.0,
            "pixels": [f"{n:032x}" for n in range(N)],
        }
    )
    features_ND = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    return FeatureSet(features_ND, features_ND[:0], index, {})


def groups_in(pack, rows):
    return set(pack.index["group"].iloc[rows])


def test_a_training_chooses_by_training_images_that_it_does_not_learn(pack):
    lesson = main_lesson(pack, 0)
    assert np.array_equal(lesson.known, pack.rows("train"))
    assert np.array_equal(lesson.judged, pack.rows("val"))
    assert not groups_in(pack, lesson.learned) & groups_in(pack, lesson.inner)
    assert 10 <= len(lesson.inner) <= 30


def test_each_fold_is_judged_on_groups_that_its_training_does_not_know(pack):
    lessons = fold_lessons(pack, 4, 0)
    assert len(lessons) == 4
    for lesson in lessons:
        assert not groups_in(pack, lesson.known) & groups_in(pack, lesson.judged)
        assert not groups_in(pack, lesson.learned) & groups_in(pack, lesson.inner)
    assert fold_lessons(pack, 0, 0) == []
    judged = np.concatenate([lesson.judged for lesson in lessons])
    assert np.array_equal(np.sort(judged), pack.rows("train", "val"))


def test_folds_are_for_few_units_of_validation(pack):
    assert folds_of(FinetuneParams(), pack) == 5
    assert folds_of(FinetuneParams(folds=0), pack) == 0
    many = replace(pack, index=pack.index.assign(group=None, split=np.repeat(["train", "val"], N // 2)))
    assert folds_of(FinetuneParams(mode="on"), many) == 0
    assert folds_of(FinetuneParams(mode="auto"), many) == 5, "the budget decides whether there is time for them"


def test_the_refit_learns_training_and_validation_images_and_chooses_nothing(pack):
    lesson = refit_lesson(pack)
    assert np.array_equal(lesson.learned, pack.rows("train", "val"))
    assert not len(lesson.inner)


def test_another_process_finds_the_same_lesson_by_its_name(pack):
    params = FinetuneParams(folds=3)
    for lesson in (main_lesson(pack, 0), fold_lessons(pack, 3, 0)[1], refit_lesson(pack)):
        again = lesson_named(lesson.name, pack, params)
        assert np.array_equal(again.learned, lesson.learned)
        assert np.array_equal(again.inner, lesson.inner)


def test_a_class_counts_as_its_weight_says(pack):
    rows = np.arange(N)
    assert np.array_equal(weighed(pack, None).weights(rows), np.ones(N))
    assert np.array_equal(weighed(pack, [2.0, 5.0]).weights(rows), np.where(pack.labels(rows) == 0, 2.0, 5.0))
