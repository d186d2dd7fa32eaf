from pathlib import Path

import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.labels import read_labels
from graft.tasks.preprocess.scan import read_table, scan

FILE = Path("labels.csv")


def labels(task, **columns):
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(len(next(iter(columns.values()))))], **columns})
    return list(read_labels(table, FILE, task))


@pytest.mark.parametrize(
    ("cell", "label"),
    [("b|a", "a|b"), ("a", "a"), ("", ""), ("a|a", "a"), (" a | b ", "a|b"), ("a||b|", "a|b"), (None, "")],
)
def test_classes_with_a_bar_between_are_sorted_and_stand_once(cell, label):
    assert labels("multilabel", label=[cell]) == [label]


def test_a_list_in_a_cell_is_several_classes():
    assert labels("multilabel", label=[["b", "a"], []]) == ["a|b", ""]


def test_columns_of_zeros_and_ones_name_the_classes():
    columns = {"label:dog": ["1", "0", "1"], "label:a cat": ["1", "0", "0"], "dog": ["x", "y", "z"]}
    assert labels("multilabel", **columns) == ["a cat|dog", "", "dog"]


@pytest.mark.parametrize("cell", [1, 1.0, True, "1", "true", "True", "1.0", " 1 "], ids=repr)
def test_one_may_be_written_in_several_ways(cell):
    assert labels("multilabel", **{"label:a": [cell]}) == ["a"]


@pytest.mark.parametrize(
    ("cell", "label"),
    [("12", "12.0"), ("-0.5", "-0.5"), ("1.5e3", "1500.0"), (" 7 ", "7.0"), ("-0", "0.0"), (0.1, "0.1"), (3, "3.0")],
)
def test_a_number_is_written_in_one_way(cell, label):
    assert labels("regression", label=[cell, 1]) == [label, "1.0"]


def test_a_number_reads_back_to_the_bit():
    numbers = [0.1 + 0.2, 1 / 3, 1e-300, 123456789.123456789]
    assert [float(label) for label in labels("regression", target=[repr(n) for n in numbers])] == numbers


def test_the_column_of_the_numbers_may_be_called_target():
    assert labels("regression", target=["1"]) == ["1.0"]


@pytest.mark.parametrize("cell", ["", None])
def test_an_empty_cell_is_no_number_and_no_class(cell):
    assert pd.isna(labels("regression", label=["1", cell])[1])
    assert pd.isna(labels("classification", label=["a", cell])[1])


@pytest.mark.parametrize("cell", ["warm", "1,5", "nan", "inf", "-inf", "1_000", "0x10", "12 px"])
def test_what_is_no_number_is_refused_with_row_and_value(cell):
    with pytest.raises(DataError, match=r"a label that is not a number[\s\S]*row 2:") as refused:
        labels("regression", label=["1", cell])
    assert refused.value.got == f"row 2: {cell}"


@pytest.mark.parametrize(
    ("task", "columns", "told"),
    [
        ("classification", {"target": ["1"]}, r"lacks the column label[\s\S]*`head.task: regression`"),
        ("classification", {"label:a": ["1"]}, r"lacks the column label[\s\S]*`head.task: multilabel`"),
        ("classification", {"label": [["a", "b"]]}, r"is a list[\s\S]*`head.task: multilabel`"),
        ("regression", {"label:a": ["1"]}, r"lacks the column label[\s\S]*`head.task: multilabel`"),
        ("regression", {"label": ["1"], "target": ["2"]}, "two columns that may be the number"),
        ("multilabel", {"target": ["1"]}, r"lacks the column label[\s\S]*`head.task: regression`"),
        ("multilabel", {"label": ["a"], "label:a": ["1"]}, "gives the classes twice"),
        ("multilabel", {"label:": ["1"]}, "a column does not name a class"),
        ("multilabel", {"label:a|b": ["1"]}, "a column does not name a class"),
        ("multilabel", {"label": [["a|b"]]}, r"a class is called a\|b"),
        ("multilabel", {"label:a": ["1", "-1"]}, r"neither 0 nor 1 in the column label:a[\s\S]*row 2: -1"),
        ("multilabel", {"label:a": [""]}, r"neither 0 nor 1 in the column label:a[\s\S]*row 1: nothing"),
    ],
)
def test_a_table_of_another_task_is_refused_with_the_way_out(task, columns, told):
    with pytest.raises(DataError, match=told):
        labels(task, **columns)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folders_of_classes_are_refused_where_a_label_is_no_single_class(tmp_path, task):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    with pytest.raises(DataError, match=rf"which `head.task: {task}` needs[\s\S]*write the table"):
        scan(tmp_path, task)


def test_a_file_that_the_table_does_not_name_has_no_label_and_one_without_classes_has_an_empty_one(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    (tmp_path / "labels.csv").write_text("path,label\n1.png,\n", encoding="utf-8")
    found = scan(tmp_path, "multilabel").set_index("path")["label"]
    assert found["1.png"] == ""
    assert pd.isna(found["2.png"])


def test_a_row_without_a_number_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n1.png,3\n2.png,\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: no label"):
        read_table(tmp_path / "labels.csv", "regression")


@pytest.mark.parametrize(
    ("task", "columns", "expected"),
    [
        ("multilabel", {"label": [["b", "a"], ["a"]]}, ["a|b", "a"]),
        ("multilabel", {"label:a": [1, 0], "label:b": [True, False]}, ["a|b", ""]),
        ("regression", {"target": [1, 2]}, ["1.0", "2.0"]),
        ("regression", {"label": [0.25, -1e10]}, ["0.25", "-10000000000.0"]),
        ("classification", {"label": [0.0, 1.0]}, ["0", "1"]),
        ("classification", {"label": [0.5, 1.0]}, ["0.5", "1"]),
        ("classification", {"label": [b"cat", "K\u00e4fer".encode()]}, ["cat", "K\u00e4fer"]),
        ("classification", {"label": ["  cat", "Ka\u0308fer"]}, ["cat", "K\u00e4fer"]),
    ],
)
def test_a_parquet_table_keeps_its_types(tmp_path, task, columns, expected):
    pd.DataFrame({"path": ["1.png", "2.png"], **columns}).to_parquet(tmp_path / "list.parquet")
    assert list(read_table(tmp_path / "list.parquet", task).rows["label"]) == expected


def test_bytes_that_are_no_text_are_refused(tmp_path):
    pd.DataFrame({"path": ["1.png"], "label": [b"\xff"]}).to_parquet(tmp_path / "list.parquet")
    with pytest.raises(DataError, match="bytes that are not UTF-8"):
        read_table(tmp_path / "list.parquet")


def test_images_in_a_parquet_file_are_refused_with_what_to_do(tmp_path):
    pd.DataFrame({"image": [{"bytes": b"x", "path": "1.png"}], "label": ["a"]}).to_parquet(tmp_path / "list.parquet")
    with pytest.raises(DataError, match="write the images to files"):
        read_table(tmp_path / "list.parquet")


def test_lists_are_no_numbers():
    with pytest.raises(DataError, match=r"a label that is not a number[\s\S]*row 2:"):
        labels("regression", label=["1", [1.0, 2.0]])


@pytest.mark.parametrize("number", ["1e200", "-1e101"])
def test_numbers_whose_squares_have_no_place_are_refused(number):
    with pytest.raises(DataError, match=r"at most 1e\+100 away from 0"):
        labels("regression", label=["1", number])


def test_two_columns_of_one_class_are_refused():
    with pytest.raises(DataError, match=r"two columns of one class(.|\n)*cat"):
        labels("multilabel", **{"label:cat": ["1", "0"], "label: cat": ["0", "0"]})


def test_an_empty_cell_does_not_rename_classes_that_are_whole_numbers():
    assert labels("multilabel", label=pd.Series([1, 2, None])) == ["1", "2", ""]


def test_nothing_in_a_list_is_no_class():
    assert labels("multilabel", label=[["a", None]]) == ["a"]
