import pandas as pd
import pytest
from sharded import write_shard

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.scan import given_splits, hidden, list_files, scan


@pytest.fixture
def raw(tmp_path):
    def make(*files, table=None):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        if table is not None:
            (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
        return tmp_path

    return make


def column(table, name):
    return [None if pd.isna(value) else value for value in table.set_index("path")[name].sort_index()]


def test_a_folder_without_files_is_refused_with_the_way_to_bring_some(tmp_path):
    with pytest.raises(DataError, match="graft import"):
        scan(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="contains no files"):
        scan(tmp_path / "nowhere")


def test_files_are_listed_with_slashes_and_sorted(raw):
    assert list_files(raw("b/2.png", "a/1.png", "c.png")) == ["a/1.png", "b/2.png", "c.png"]


def test_a_folders_name_is_the_label(raw):
    assert column(scan(raw("cat/1.png", "dog/2.png")), "label") == ["cat", "dog"]


def test_a_folder_below_a_class_belongs_to_the_class(raw):
    assert column(scan(raw("cat/x/1.png", "dog/2.png")), "label") == ["cat", "dog"]


def test_a_file_outside_the_classes_has_no_label(raw):
    assert column(scan(raw("cat/1.png", "readme.txt")), "label") == ["cat", None]


def test_class_folders_leave_the_split_open(raw):
    assert column(scan(raw("cat/1.png", "dog/2.png")), "split") == [None, None]


def test_split_folders_give_split_and_label(raw):
    table = scan(raw("test/cat/1.png", "train/cat/2.png", "val/cat/3.png"))
    assert column(table, "split") == ["test", "train", "val"]
    assert column(table, "label") == ["cat"] * 3


def test_other_names_of_splits_are_understood(raw):
    table = scan(raw("Testing/a/1.png", "training/a/2.png", "valid/a/3.png"))
    assert column(table, "split") == ["test", "train", "val"]


def test_a_class_called_like_a_split_among_others_is_a_class(raw):
    assert column(scan(raw("test/1.png", "cat/2.png")), "label") == ["cat", "test"]


def test_a_hidden_folder_does_not_hide_the_split_folders(raw):
    table = scan(raw("train/a/1.png", "test/a/2.png", ".cache/x"))
    assert column(table, "split") == [None, "test", "train"]


def test_a_file_in_a_split_but_in_no_class_has_no_label(raw):
    assert column(scan(raw("train/a/1.png", "train/2.png", "test/a/3.png")), "label") == ["a", None, "a"]


def test_training_and_validation_alone_make_validation_the_test(raw):
    assert column(scan(raw("train/a/1.png", "val/a/2.png")), "split") == ["train", "test"]


def test_three_splits_stay_what_they_are_called():
    table = pd.DataFrame({"split": ["train", "val", "test"]})
    assert list(given_splits(table)["split"]) == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("files", "got"),
    [
        (("val/a/1.png", "test/a/2.png"), "only test and val"),
        (("test/a/1.png", "test/b/2.png"), "only test"),
        (("train/a/1.png", "train/b/2.png"), "only train"),
    ],
    ids=["val and test", "test", "train"],
)
def test_given_splits_without_one_to_train_on_and_one_to_test_on_are_refused(raw, files, got):
    with pytest.raises(DataError, match="not one to train on and one to test on") as caught:
        scan(raw(*files))
    assert caught.value.got == got


def test_a_table_gives_label_split_group_and_weight(raw):
    text = "path,label,split,group,weight\n1.png,a,train,g1,2.5\n2.png,b,test,,\n"
    table = scan(raw("1.png", "2.png", table=text)).query("path != 'labels.csv'")
    assert column(table, "label") == ["a", "b"]
    assert column(table, "split") == ["train", "test"]
    assert column(table, "group") == ["g1", None]
    assert column(table, "weight") == [2.5, 1.0]


def test_a_table_needs_only_path_and_label(raw):
    table = scan(raw("1.png", table="path,label\n1.png,a\n"))
    row = table[table["path"] == "1.png"].iloc[0]
    assert row["label"] == "a"
    assert pd.isna(row["split"])
    assert row["weight"] == 1.0


def test_a_label_that_is_a_number_stays_as_it_is_written(raw):
    table = scan(raw("1.png", "2.png", table="path,label\n1.png,007\n2.png,NA\n"))
    assert column(table[table["path"] != "labels.csv"], "label") == ["007", "NA"]


def test_a_file_that_the_table_does_not_name_has_no_label(raw):
    assert column(scan(raw("1.png", "2.png", table="path,label\n1.png,a\n")), "label") == ["a", None]


def test_other_columns_of_a_table_are_left_alone(raw):
    table = scan(raw("1.png", table="path,label,camera\n1.png,a,x\n"))
    assert "camera" not in table.columns


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,kind\n1.png,a\n", "lacks the column label"),
        ("label\na\n", "lacks the column path"),
        ("path,label\n1.png,\n", "row 1: no label"),
        ("path,label\n1.png,a\n,b\n", "row 2: no path"),
        ("path,label\n1.png,a\n1.png,b\n", "row 2: 1.png for the second time, after row 1"),
        ("path,label\n1.png,a\ngone.png,b\n", "row 2: gone.png does not exist"),
        ("path,label,split\n1.png,a,holdout\n", "unknown split"),
        ("path,label,weight\n1.png,a,heavy\n", "not a positive number"),
        ("path,label,weight\n1.png,a,0\n", "not a positive number"),
        ("path,label,weight\n1.png,a,-1\n", "not a positive number"),
        ("path,label,weight\n1.png,a,inf\n", "not a positive number"),
        ("", "cannot be read as a table"),
        ('path,label\n"1.png,a\n', "labels.csv"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_what_is_wrong(raw, table, message):
    with pytest.raises(DataError, match=message):
        scan(raw("1.png", table=table))


def test_a_table_that_is_not_text_is_refused(raw):
    folder = raw("1.png")
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError):
        scan(folder)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("a/.x.png", True),
        (".git/a.png", True),
        ("a/Thumbs.DB", True),
        ("a/b.c.png", False),
        ("a/x.png", False),
        ("#recycle/a.png", True),
        ("$RECYCLE.BIN/S-1-5/a.png", True),
        ("a/@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg", True),
        ("lost+found", True),
        ("recycle/a.png", False),
    ],
)
def test_hidden_files_are_known_by_their_names(file, expected):
    assert hidden(file) is expected


@pytest.mark.parametrize(
    ("members", "files", "told"),
    [
        (("cat/1.png",), ("cat/1.png",), r"twice under the same name\n.*1: cat/1\.png"),
        ((), ("cat/1.png", "old.tar"), r"tar files that are no shards\n.*1: old\.tar\n(.*\n)*.*graft import"),
        ((), ("cat/1.png", "cat/old.tar"), r"1: cat/old\.tar"),
        (("labels.csv", "1.png"), (), r"labels\.csv is in a shard of .*\n.*a file beside the shards"),
        (("cat/1.png",), ("old.tar",), r"old\.tar is half of a shard\n.*no old\.index\.parquet"),
    ],
    ids=["twice", "no shard", "elsewhere", "table", "half"],
)
def test_shards_and_files_that_do_not_fit_are_refused(tmp_path, raw, members, files, told):
    folder = raw(*files)
    if members:
        write_shard(folder, dict.fromkeys(members, b"x"))
    with pytest.raises(DataError, match=told):
        scan(folder)
