"""Exports of Roboflow and Hugging Face, and what Graft does not take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graft.flows.ingest.exports import find_export
from graft.flows.ingest.plan import plan_import
from graft.tasks.common.core.errors import DataError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images in each of three splits, in no folder of a class."""
    for split in ("train", "valid", "test"):
        for name in "ab":
            (tmp_path / "export" / split / f"{name}.jpg").parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "export" / split / f"{name}.jpg").write_text(split + name, encoding="utf-8")
    (tmp_path / "export" / "README.roboflow.txt").write_text("x", encoding="utf-8")
    return tmp_path / "export"


def write(source: Path, name: str, text: str) -> None:
    for split in ("train", "valid", "test"):
        (source / split / name).write_text(text, encoding="utf-8")


IN_ALL = {"train": {"ant": 1, "bee": 1}, "val": {"ant": 1, "bee": 1}, "test": {"ant": 1, "bee": 1}}


def test_roboflows_classes_are_one_class_an_image(source: Path) -> None:
    write(source, "_classes.csv", "filename, ant, bee\na.jpg, 1, 0\nb.jpg, 0, 1\n")

    plan = plan_import(source)

    assert (plan.form, plan.summary()["splits"]) == ("table", IN_ALL)
    assert set(plan.files) == {f"images/{split}/{name}.jpg" for split in ("train", "valid", "test") for name in "ab"}
    assert plan.left_out.names == {"not an image, by the suffix": ["README.roboflow.txt"]}


def test_roboflows_classes_are_several_an_image_if_the_project_says_so(source: Path) -> None:
    write(source, "_classes.csv", "filename, ant, bee\na.jpg, 1, 1\nb.jpg, 0, 1\n")

    assert list(plan_import(source, "multilabel").rows["label"]) == ["ant|bee", "bee"] * 3
    with pytest.raises(DataError, match=r"without exactly one class[\s\S]*row 1: 1 1[\s\S]*`head.task: multilabel`"):
        plan_import(source)
    with pytest.raises(DataError, match=r"`head\.task` is regression"):
        plan_import(source, "regression")


def test_an_export_in_a_folder_around_it_is_found(source: Path) -> None:
    write(source, "_classes.csv", "filename,ant,bee\na.jpg,1,0\nb.jpg,0,1\n")
    assert set(plan_import(source.parent).files) == set(plan_import(source).files)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_hugging_faces_metadata_give_labels_and_folders_the_splits(source: Path, kind: str) -> None:
    rows = [("a.jpg", "ant"), ("b.jpg", "bee")]
    lines = [json.dumps({"file_name": name, "label": label}) for name, label in rows]
    table = "\n".join(["file_name,label", *map(",".join, rows)])
    write(source, f"metadata.{kind}", "\n".join(lines) if kind == "jsonl" else table)

    assert plan_import(source).summary()["splits"] == IN_ALL


def test_one_table_of_metadata_takes_the_splits_from_the_folders(source: Path) -> None:
    rows = [f"{split}/{name}.jpg,{name}" for split in ("train", "valid", "test") for name in "ab"]
    (source / "metadata.csv").write_text("\n".join(["file_name,label", *rows]), encoding="utf-8")

    plan = plan_import(source)
    assert list(plan.rows["split"]) == ["train", "train", "val", "val", "test", "test"]
    assert "splits: the first folder of each path" in plan.notes


def test_metadata_without_labels_leave_the_classes_to_the_folders(tmp_path: Path) -> None:
    for name in ("ant/1.jpg", "bee/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "metadata.csv").write_text("file_name,text\nant/1.jpg,an ant\n", encoding="utf-8")

    plan = plan_import(tmp_path)
    assert (plan.form, plan.classes()) == ("classes", {"ant": 1, "bee": 1})


def test_images_without_a_row_are_counted(source: Path) -> None:
    write(source, "_classes.csv", "filename,ant,bee\na.jpg,1,0\n")
    assert plan_import(source).left_out.names["no row in the table"] == ["test/b.jpg", "train/b.jpg", "valid/b.jpg"]


@pytest.mark.parametrize(
    ("table", "kind"), [("train/_annotations.coco.json", "COCO"), ("data.yaml", "YOLO"), ("test/_annotations.csv", "")]
)
def test_exports_for_object_detection_are_refused_with_what_to_export(source: Path, table: str, kind: str) -> None:
    (source / table).write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=rf"object detection or segmentation \({kind}[\s\S]*Folder Structure"):
        plan_import(source)


@pytest.mark.parametrize(
    ("files", "tables"),
    [
        (["labels.csv", "metadata.csv", "a.png"], ("labels.csv",)),
        (["x/labels.csv", "x/a.png"], ("x/labels.csv",)),
        (["cat/metadata.csv", "cat/1.png", "dog/1.png"], None),
        (["train/cat/labels.csv", "train/cat/1.png", "train/dog/1.png"], None),
        (["cat/1.png"], None),
    ],
)
def test_only_tables_for_all_images_count(files: list[str], tables: tuple[str, ...] | None) -> None:
    export = find_export(files)
    assert (export and export.tables) == tables
