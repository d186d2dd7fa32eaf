"""What a class and a split are, told from the names of the files alone."""

import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.layouts import layout_of, may_be_image, refuse_masks, refuse_mixed


@pytest.mark.parametrize(
    ("files", "form", "wrapper", "places"),
    [
        (["cat/1.png", "dog/2.png"], "classes", "", ["cat/1.png", "dog/2.png"]),
        (["data/cat/1.png", "data/dog/2.png"], "classes", "data", ["cat/1.png", "dog/2.png"]),
        (["a/b/cat/1.png", "a/b/dog/x/2.png"], "classes", "a/b", ["cat/1.png", "dog/x/2.png"]),
        (["d/train/cat/1.png", "d/val/cat/2.png"], "splits", "d", ["train/cat/1.png", "val/cat/2.png"]),
        (["cat/train/1.png", "cat/test/2.png", "dog/train/3.png"], "splits", "", None),
        (["images/cat/1.png", "images/dog/1.png", "notes/1.xml"], "classes", "images", None),
        (["valid/1.png", "invalid/2.png"], "classes", "", ["valid/1.png", "invalid/2.png"]),
        (["train/1.png", "bus/2.png", "car/3.png"], "classes", "", None),
        (["data/cat/1.png", "data/dog/2.png", "data/3.png"], "classes", "data", ["cat/1.png", "dog/2.png", None]),
        (["cat/1.png", "cat/more/2.png"], "classes", "", ["cat/1.png", "cat/more/2.png"]),
        (["train/cat/1.png", "cats/2.png"], "mixed", "", None),
        (["cat/train/1.png", "cat/test/2.png", "dog/3.png"], "mixed", "", None),
        (["1.png", "2.png"], "flat", "", [None, None]),
        (["cat/notes.txt"], "flat", "", [None]),
    ],
)
def test_the_layout_is_recognised(files, form, wrapper, places):
    layout = layout_of(files)
    assert (layout.form, layout.wrapper) == (form, wrapper)
    if places is not None:
        assert [layout.place(file) for file in files] == places


def test_splits_below_the_classes_come_first_in_the_place():
    layout = layout_of(["cat/train/1.png", "cat/test/x/2.png", "dog/train/3.png"])
    assert layout.place("cat/test/x/2.png") == "test/cat/x/2.png"
    assert (layout.label("cat/test/x/2.png"), layout.split("cat/test/x/2.png")) == ("cat", "test")


def test_spaces_and_another_unicode_form_make_no_other_class():
    layout = layout_of(["Ka\u0308fer/1.png", " K\u00e4fer /2.png"])
    assert {layout.label("Ka\u0308fer/1.png"), layout.label(" K\u00e4fer /2.png")} == {"K\u00e4fer"}


@pytest.mark.parametrize(("classes", "label"), [((), "young"), (("cat",), "cat")])
def test_a_folder_of_a_known_class_is_no_wrapper(classes, label):
    files = ["cat/young/1.png", "cat/old/2.png"]
    assert layout_of(files, classes=classes).label(files[0]) == label


def test_a_known_class_with_the_name_of_a_split_is_a_class():
    assert layout_of(["train/1.png"], classes=["train"]).label("train/1.png") == "train"


def test_system_folders_are_no_classes_and_no_reason_against_a_wrapper():
    layout = layout_of(["data/cat/1.png", "data/dog/1.png", "#recycle/1.png", "__MACOSX/data/cat/._1.png"])
    assert (layout.wrapper, layout.tops) == ("data", ("cat", "dog"))


def test_classes_with_the_same_folders_in_them_are_told():
    files = [f"{week}/{kind}/1.png" for week in ("monday", "tuesday") for kind in ("good", "bad")]
    assert layout_of(files).alike == ("bad", "good")


def test_a_mixture_is_refused_with_the_folders(tmp_path):
    with pytest.raises(DataError, match=r"mixes split folders with others[\s\S]*raw, test, train"):
        refuse_mixed(tmp_path, layout_of(["train/a/1.png", "test/a/2.png", "raw/a/3.png"]))


@pytest.mark.parametrize(
    ("name", "expected"), [("a/1.JPG", True), ("a/1", True), ("a.b/1.TXT", False), ("x.csv", False), ("a/txt", True)]
)
def test_suffixes_tell_what_is_never_an_image(name, expected):
    assert may_be_image(name) is expected


MVTEC = ("train/good/1.png", "test/good/1.png", "test/crack/1.png", "ground_truth/crack/1_mask.png")


@pytest.mark.parametrize("around", ["", "tile/", "a/tile/"])
def test_mvtecs_masks_are_no_class(around):
    files = [f"{around}{file}" for file in MVTEC]
    layout = layout_of(files)
    assert [layout.label(file) for file in files] == ["good", "good", "crack", None]
    assert (layout.form, layout.masks) == ("splits", f"{around}ground_truth")
    assert [layout.place(file) for file in files] == list(MVTEC)


def test_a_class_called_as_the_masks_are_stays_one():
    layout = layout_of(["ground_truth/1.png", "other/1.png"])
    assert (layout.label("ground_truth/1.png"), layout.masks) == ("ground_truth", "")


def test_masks_alone_join_what_is_there():
    assert layout_of(["ground_truth/crack/1.png"], classes=["crack"]).masks == "ground_truth"
    assert layout_of(["ground_truth/crack/1.png", "ground_truth/hole/1.png"]).wrapper == "ground_truth"


def test_masks_are_refused_where_the_task_uses_none(tmp_path):
    with pytest.raises(
        DataError, match=r"head.task: classification[\s\S]*ground_truth/ beside test, train[\s\S]*head.task: anomaly"
    ):
        refuse_masks(tmp_path, layout_of(MVTEC), "classification")
    refuse_masks(tmp_path, layout_of(MVTEC), "anomaly")


def test_of_several_data_sets_one_is_to_be_imported(tmp_path):
    files = [f"mvtec/{name}/{file}" for name in ("tile", "wood") for file in MVTEC]
    with pytest.raises(DataError, match=r"several data sets[\s\S]*tile, wood[\s\S]*import one of its folders"):
        refuse_mixed(tmp_path, layout_of(files))
