"""Tables as people have them."""

import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.image_table import Files, read_table
from graft.tasks.preprocess.tables import NAMED, load_table, spellings


@pytest.fixture
def read(tmp_path):
    def make(content, name="list.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_table(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("path;label\na.png;K\u00e4fer\n", "separator: semicolons"),
        ("path\tlabel\na.png\tK\u00e4fer\n", "separator: tabs"),
        ("sep=;\r\npath;label\r\na.png;K\u00e4fer\r\n", "separator: semicolons"),
        ("path;label\na.png;K\u00e4fer\n".encode("latin-1"), "read as Latin-1"),
        ("path,label\na.png,K\u00e4fer\n".encode("utf-8-sig"), None),
        ("path\tlabel\na.png\tK\u00e4fer\n".encode("utf-16"), "encoding: UTF-16"),
        ("Filename, Class\na.png, K\u00e4fer \n", "column `Filename` taken as path"),
        ('image_path,category\n"a.png" , "K\u00e4fer"\n'.replace(" ,", ","), "column `category` taken as label"),
        ("path,label,\na.png,K\u00e4fer,\n\n", None),
    ],
)
def test_separators_encodings_and_names_of_columns_are_recognised_and_told(read, content, note):
    table = read(content)
    assert table.rows[["path", "label"]].to_numpy().tolist() == [["a.png", "K\u00e4fer"]]
    assert note is None or any(note in told for told in table.notes)


def test_json_lines_are_rows(read):
    assert read('{"file_name": "a.png", "label": 1}\n', "metadata.jsonl").rows.to_numpy().tolist() == [["a.png", 1]]


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("path,label\na.png,cat,dog\nb.png,cat\nc.png,x,y\n", "l.csv", r"row 1: 3 cells; row 3: 3 cells[\s\S]*quotes"),
        ("filename,image,label\na,b,c\n", "l.csv", r"several columns that may be the path[\s\S]*filename, image"),
        ("path,label,label\na,b,c\n", "l.csv", "several columns that may be the label"),
        ("{}\nnope\n[1]\n", "l.jsonl", r"no JSON objects[\s\S]*row 2: nope; row 3: \[1\]"),
        (b"path,label\n\0", "l.csv", "not a text"),
        ("", "l.csv", "it is empty"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(read, content, name, told):
    with pytest.raises(DataError, match=told):
        read(content, name)


def test_all_bad_rows_are_named_up_to_a_limit(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(f"{n}.png,\n" for n in range(NAMED + 7)), encoding="utf-8")
    with pytest.raises(DataError, match=r"27 rows that cannot be used") as refused:
        read_table(table)
    assert str(refused.value.got).startswith("row 1: no label; row 2: no label; ")
    assert str(refused.value.got).endswith("row 20: no label; and 7 more")


def test_different_faults_of_a_table_are_told_at_once(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label,split,weight\na,x,,\n,x,,\n./a,y,,\nb,x,night,\nc,x,,-1\n", encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_table(table)
    assert refused.value.got == (
        "row 2: no path; row 3: a for the second time, after row 1; row 4: unknown split night; "
        "row 5: weight -1, which is not a positive number"
    )


def test_splits_and_groups_may_be_given_for_some_images_only(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label,split,group\na,x,train,\nb,x,,\nc,y,Valid,g\nd,y\n", encoding="utf-8")
    rows = read_table(table).rows
    assert [None if pd.isna(value) else value for value in rows["split"]] == ["train", None, "val", None]
    assert [None if pd.isna(value) else value for value in rows["group"]] == [None, None, "g", None]


def test_an_index_of_a_parquet_file_is_a_column(tmp_path):
    pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"]}).set_index("path").to_parquet(tmp_path / "list.parquet")
    assert list(read_table(tmp_path / "list.parquet").rows["path"]) == ["a", "b"]


def test_a_path_is_taken_in_the_spelling_that_exists(tmp_path):
    class Two(Files):
        def __contains__(self, name):
            return name in ("pictures/a.png", "Ka\u0308fer.png", r"odd\name.png")

    table = tmp_path / "list.csv"
    table.write_text("path,label\n.\\pictures\\a.png,x\nK\u00e4fer.png,x\nodd\\name.png,y\n", encoding="utf-8")
    assert list(read_table(table, files=Two()).rows["path"]) == ["pictures/a.png", "Ka\u0308fer.png", r"odd\name.png"]


def test_spellings_begin_with_the_path_as_it_is_written():
    assert spellings(r" a\b.png ") == [r"a\b.png", "a/b.png"]


def test_only_a_column_of_split_names_is_taken_for_the_split(read):
    assert "split" in read("path,label,data set\na,x,train\nb,y,test\n").rows
    assert "split" not in read("path,label,data set\na,x,birds\nb,y,test\n").rows
