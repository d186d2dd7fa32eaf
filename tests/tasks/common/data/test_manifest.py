import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.manifest import classes, codes, counts, read_manifest, write_table


@pytest.fixture
def table():
    return pd.DataFrame(
        {"label": ["b", "a", "b", "c"], "task": "classification", "split": ["train", "test", "train", "val"]}
    )


def test_classes_are_the_labels_in_order(table):
    assert classes(table) == ["a", "b", "c"]


def test_a_code_is_a_labels_place_among_the_classes(table):
    assert codes(table["label"], ["a", "b", "c"]).tolist() == [1, 0, 1, 2]


def test_counts_tell_zero_for_a_split_without_images(table):
    assert counts(table)["b"] == {"train": 2, "val": 0, "test": 0}


def test_the_same_table_has_the_same_bytes(table, tmp_path):
    for name in ("one", "two"):
        write_table(table, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_table_reads_as_it_was_written(table, tmp_path):
    write_table(table, tmp_path / "manifest.parquet")
    found = read_manifest(tmp_path)
    pd.testing.assert_frame_equal(found[table.columns], table, check_dtype=False)
    assert found[["mask", "target"]].isna().all(axis=None)  # of a manifest from before there were such columns


def test_a_manifest_that_is_not_there_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(DataError, match="preprocess"):
        read_manifest(tmp_path)


def test_an_image_may_have_several_classes_or_none():
    manifest = pd.DataFrame({"label": ["b|c", "", "a", "c"], "task": "multilabel"})

    assert classes(manifest) == ["a", "b", "c"]


def test_numbers_are_no_classes():
    assert classes(pd.DataFrame({"label": ["0.5", "2"], "task": "regression"})) == []


def test_an_image_counts_for_each_of_its_classes():
    manifest = pd.DataFrame({"label": ["b|c", "", "c"], "task": "multilabel", "split": ["train", "val", "test"]})

    assert counts(manifest) == {
        "b": {"train": 1, "val": 0, "test": 0},
        "c": {"train": 1, "val": 0, "test": 1},
    }


@pytest.mark.parametrize(("task", "label"), [("multilabel", ""), ("regression", "1.0")])
def test_no_classes_are_counted_where_there_are_none(task, label):
    assert counts(pd.DataFrame({"label": [label], "task": task, "split": ["train"]})) == {}
