"""What is recognised as a source of images, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from projects import draw_tile, draw_tiles

from graft.flows.ingest.plan import plan_import
from graft.tasks.common.core.errors import DataError


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("path\npictures/0.png\n", "lacks the column label"),
        ("path,label\npictures/9.png,a\n", "does not exist"),
        ("path,label\npictures/0.png,a\npictures/0.png,b\n", "for the second time, after row 1"),
        ("path,label\npictures/0.png,\n", "row 1: no label"),
        ("path,label,split\npictures/0.png,a,night\n", "unknown split"),
        ("path,label,weight\npictures/0.png,a,-1\n", "positive number"),
        ("path,label,split\npictures/0.png,a,train\npictures/1.png,b,train\n", "split of their own"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong(table: Path, rows: str, expected: str) -> None:
    table.write_text(rows, encoding="utf-8")

    with pytest.raises(DataError, match=expected):
        plan_import(table)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")

    with pytest.raises(DataError, match="neither a folder, an archive nor a table"):
        plan_import(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["../elsewhere/secret.png", "/etc/hostname", "pictures/link.png"])
def test_a_row_that_leads_out_of_the_tables_folder_is_refused_unless_allowed(
    table: Path, secret: Path, name: str
) -> None:
    (table.parent / "pictures" / "link.png").symlink_to(secret)
    table.write_text(f"path,label\npictures/0.png,a\n{name},b\n", encoding="utf-8")

    with pytest.raises(DataError, match=rf"outside its folder[\s\S]*row 2: {name}[\s\S]*--allow-outside"):
        plan_import(table)

    assert len(plan_import(table, outside=True).files) == 2


def test_a_row_of_a_fifo_is_refused(table: Path) -> None:
    os.mkfifo(table.parent / "fifo.png")
    table.write_text("path,label\nfifo.png,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"FIFOs[\s\S]*row 1: fifo\.png"):
        plan_import(table)


def test_a_table_of_numbers_says_which_row_is_none(table: Path) -> None:
    table.write_text("path,label\npictures/0.png,1\npictures/1.png,warm\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"a label that is not a number[\s\S]*row 2: warm"):
        plan_import(table, "regression")


def draw_names(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def test_a_folder_around_the_classes_is_looked_through_and_told(tmp_path: Path) -> None:
    plan = plan_import(draw_names(tmp_path, "data/Waste/Glass/1.png", "data/Waste/Paper/2.png", "data/readme.txt"))

    assert list(plan.files) == ["Glass/1.png", "Paper/2.png"]
    assert plan.notes == ("data/Waste/ is a folder around all others",)
    assert plan.left_out.names == {"not an image, by the suffix": ["data/readme.txt"]}


def test_splits_in_a_folder_stay_splits(tmp_path: Path) -> None:
    names = [f"data/{split}/{label}/1.png" for split in ("train", "val") for label in "ab"]
    assert plan_import(draw_names(tmp_path, *names)).summary()["splits"] == {
        "train": {"a": 1, "b": 1},
        "val": {"a": 1, "b": 1},
    }


def test_images_in_no_class_are_counted_and_named(tmp_path: Path) -> None:
    told = plan_import(draw_names(tmp_path, "a/1.png", "b/1.png", "root.png", "x.txt")).summary()

    assert told["left_out"] == {
        "not in a folder of a class": {"files": 1, "such_as": ["root.png"]},
        "not an image, by the suffix": {"files": 1, "such_as": ["x.txt"]},
    }
    assert "images that are in no folder of a class: root.png" in told["warnings"]


def test_doubtful_classes_are_told(tmp_path: Path) -> None:
    names = [f"{label}/{n}.png" for label in ("Ants", "ants", "nan") for n in range(3)]
    told = "\n".join(plan_import(draw_names(tmp_path, *names, "one/1.png")).all_warnings())

    assert "may be one: `Ants`, `ants`" in told
    assert "missing label: `nan`" in told
    assert "fewer than 3 images, so not one for each split: one" in told


def test_one_class_is_told_with_the_table_that_may_have_the_labels(tmp_path: Path) -> None:
    plan = plan_import(draw_names(tmp_path, "pictures/1.png", "pictures/2.png", "pictures/3.png", "list.csv"))
    assert plan.all_warnings() == [
        "all images are of one class, pictures: a classifier needs two; if a table has the labels, import the table "
        "itself: list.csv"
    ]


@pytest.mark.parametrize("names", [("ants/1.png", "ants /1.png"), ("Ka\u0308fer/1.png", "K\u00e4fer/1.png")])
def test_files_that_would_fall_together_are_refused_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"files of the same name[\s\S]*rename the files"):
        plan_import(draw_names(tmp_path, *names, "bees/1.png"))


def test_spaces_around_the_name_of_a_class_go(tmp_path: Path) -> None:
    plan = plan_import(draw_names(tmp_path, "ants/1.png", "ants /2.png", "bees/1.png"))
    assert plan.classes() == {"ants": 2, "bees": 1}
    assert "ants/2.png" in plan.files


@pytest.mark.parametrize("form", ["folders", "table"])
def test_a_class_without_a_training_image_is_refused_unless_images_join_others(tmp_path: Path, form: str) -> None:
    source = draw_names(tmp_path, "train/good/1.png", "train/bad/2.png", "test/good/3.png", "test/crack/4.png")
    if form == "table":
        rows = ["train/good/1.png,good", "train/bad/2.png,bad", "test/good/3.png,good", "test/crack/4.png,crack"]
        source = source / "list.csv"
        source.write_text("\n".join(["path,label", *rows]), encoding="utf-8")

    with pytest.raises(DataError, match=r"classes without a training image[\s\S]*crack"):
        plan_import(source)
    assert plan_import(source, joining=True).classes()["crack"] == 1


def test_a_missing_file_is_named_with_the_place_where_it_may_be(table: Path) -> None:
    table.write_text("filename,label\n0.png,a\n1,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 1: 0.png does not exist; row 2: 1 does[\s\S]*may mean pictures/0.png"):
        plan_import(table)


def test_two_spellings_of_one_file_are_one(table: Path) -> None:
    table.write_text("path,label\npictures/0.png,a\n./pictures\\0.png,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2: pictures/0.png for the second time"):
        plan_import(table)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return draw_tiles(tmp_path / "tile", good=6, test_good=2, defects=2)


def test_mvtecs_layout_is_recognised(tiles: Path) -> None:
    plan = plan_import(tiles.parent, "anomaly")

    summary = plan.summary()
    assert summary["classes"] == {"good": 8, "hole": 2, "scratch": 2}
    assert summary["masks"] == 3
    assert any("layout of MVTec AD" in note for note in plan.notes)
    assert "ground_truth/scratch/000_mask.png" in plan.files
    assert plan.all_warnings() == ["8 good images: at least 20 outside the test are needed"]


def test_masks_without_an_image_are_left_out_with_a_warning(tiles: Path) -> None:
    (tiles / "test" / "scratch" / "000.png").unlink()

    plan = plan_import(tiles, "anomaly")

    assert "ground_truth/scratch/000_mask.png" not in plan.files
    assert "a mask that belongs to no image" in plan.left_out.summary()
    assert any("1 masks are left out" in warning for warning in plan.all_warnings())


def test_mvtecs_layout_needs_anomaly_detection(tiles: Path) -> None:
    for task in ("classification", "multilabel"):
        with pytest.raises(DataError, match=rf"{task}[\s\S]*head.task: anomaly"):
            plan_import(tiles, task)


def test_an_import_without_good_images_names_the_labels(tmp_path: Path) -> None:
    draw_tile(tmp_path / "normal" / "1.png", 1)
    draw_tile(tmp_path / "hole" / "1.png", 1)
    with pytest.raises(DataError, match=r"no image is labelled good[\s\S]*hole, normal"):
        plan_import(tmp_path, "anomaly")
    assert plan_import(tmp_path, "anomaly", joining=True).classes() == {"normal": 1, "hole": 1}


def test_few_images_that_join_others_are_no_reason_for_a_warning(tmp_path: Path) -> None:
    draw_tile(tmp_path / "good" / "1.png", 1)
    plan = plan_import(tmp_path, "anomaly", joining=True)
    assert "at least 20" in plan.all_warnings()[0]
    assert replace(plan, joining=True).all_warnings() == []


def test_a_table_brings_its_masks(table: Path) -> None:
    (table.parent / "masks").mkdir()
    (table.parent / "masks" / "1.png").write_bytes(b"mask")
    table.write_text("path,label,mask\npictures/0.png,good,\npictures/1.png,hole,./masks/1.png\n", encoding="utf-8")

    plan = plan_import(table, "anomaly")

    assert list(plan.rows["mask"]) == [None, "images/masks/1.png"]
    assert set(plan.files) == {"images/pictures/0.png", "images/pictures/1.png", "images/masks/1.png"}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("masks/9.png", "the mask masks/9.png does not exist"), ("pictures/0.png", "which is an image of row 1")],
)
def test_a_wrong_mask_is_named(table: Path, mask: str, expected: str) -> None:
    table.write_text(f"path,label,mask\npictures/0.png,good,\npictures/1.png,hole,{mask}\n", encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        plan_import(table, "anomaly")


def test_a_column_called_mask_means_nothing_to_other_tasks(table: Path) -> None:
    table.write_text("path,label,mask\npictures/0.png,a,yes\npictures/1.png,b,no\n", encoding="utf-8")
    assert "mask" not in plan_import(table).table
