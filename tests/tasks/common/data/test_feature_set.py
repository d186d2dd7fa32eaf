import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.feature_set import FeatureSet, Learnable, RowFile, read_feature_set


def test_a_pack_that_is_not_there_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(DataError, match="features"):
        read_feature_set(tmp_path)


def test_a_pack_has_a_row_of_features_for_each_row_of_its_index(finished_paths):
    pack = read_feature_set(finished_paths.features)
    assert pack.stored_ND.shape == (len(pack.index), pack.fingerprint["dimension"])
    assert pack.stored_ND.dtype == np.float32


def test_features_are_read_from_disk_and_not_copied_into_memory(finished_paths):
    assert isinstance(read_feature_set(finished_paths.features).stored_ND, np.memmap)


def test_rows_are_those_of_the_named_splits_in_order(finished_paths):
    pack = read_feature_set(finished_paths.features)
    rows = pack.rows("train", "val")
    assert set(pack.index["split"].iloc[rows]) == {"train", "val"}
    assert (np.diff(rows) > 0).all()
    assert len(rows) + len(pack.rows("test")) == len(pack.index)


def test_labels_are_codes_among_the_classes_of_all_splits(finished_paths):
    whole = read_feature_set(finished_paths.features)
    rows = np.array([0, len(whole.index) - 1])
    assert [whole.classes[k] for k in whole.labels(rows)] == list(whole.index["label"].iloc[rows])


def test_weights_follow_the_rows(finished_paths):
    pack = read_feature_set(finished_paths.features)
    weighted = FeatureSet(
        pack.stored_ND, pack.views_VD, pack.index.assign(weight=np.arange(len(pack.index))), pack.fingerprint
    )
    assert weighted.weights(np.array([3, 1])).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_file_is_the_array_whatever_the_order_in_which_it_was_written(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(dtype)
    values[:, 3] = 2
    order = np.random.default_rng(1).permutation(50)
    file = RowFile(tmp_path / "a.npy", values.shape, dtype)
    for part in np.array_split(order, 6):
        file.write(part, values[part])
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)
    assert file.mean == pytest.approx(values.astype(np.float64).mean())
    assert file.std == pytest.approx(values.astype(np.float64).std())
    assert file.constant_columns == 1


def test_a_row_file_without_rows_is_an_empty_array(tmp_path):
    RowFile(tmp_path / "a.npy", (0, 7), "float32")
    assert np.load(tmp_path / "a.npy").shape == (0, 7)


@pytest.mark.parametrize(
    ("task", "labels", "targets"),
    [
        ("classification", ["b", "a", "b"], [1, 0, 1]),
        ("multilabel", ["b|c", "", "a"], [[0, 1, 1], [0, 0, 0], [1, 0, 0]]),
        ("regression", ["0.5", "-2", "1e3"], [0.5, -2.0, 1000.0]),
    ],
)
def test_what_is_to_be_learned_of_an_image_is_a_class_some_classes_or_a_number(task, labels, targets):
    index = pd.DataFrame({"label": pd.Series(labels, dtype="string"), "task": task})
    pack = FeatureSet(np.zeros((3, 2), np.float32), np.zeros((0, 2), np.float32), index, {})

    assert pack.targets(np.arange(3)).tolist() == targets


def test_rows_to_learn_from_are_read_by_slices_over_images_and_views():
    images_ND, views_VD = (
        np.arange(10, dtype=np.float16).reshape(5, 2),
        100 + np.arange(4, dtype=np.float16).reshape(2, 2),
    )
    rows = Learnable(((images_ND, np.array([0, 2, 4])), (views_VD, np.array([0, 1]))))
    whole = np.concatenate([images_ND[[0, 2, 4]], views_VD])

    assert rows.shape == (5, 2)
    assert np.asarray(rows).tolist() == whole.tolist()
    for start in range(6):
        for stop in range(start, 7):
            assert rows[start:stop].tolist() == whole[start:stop].tolist()
    assert rows[0:5].dtype == np.float32
