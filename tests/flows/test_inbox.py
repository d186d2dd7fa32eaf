"""The inbox: what is whole is taken over, nothing is moved or deleted, and nothing is taken twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from projects import Project, draw, draw_classes, make_project

from flows.inbox import take_over
from flows.versioning import raw_listing
from tasks.common.errors import DataError
from tasks.preprocess.scan import list_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with twelve images under DVC."""
    project = make_project(tmp_path / "project")
    draw_classes(project.root / "data" / "raw", each=4)
    project.dvc("add", "data/raw")
    return project.root


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    for number in (100, 101):
        draw(folder / "red" / f"{number}.png", 0, number)
    for file in folder.rglob("*.png"):
        age(file)
    return folder


def age(file: Path, seconds: float = 3600.0) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {name: (stat.st_mtime_ns, stat.st_ino) for name in list_files(folder) if (stat := (folder / name).stat())}


def test_new_files_join_the_images_and_the_inbox_stays_as_it_is(root: Path, inbox: Path) -> None:
    before = stamps(inbox)
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.known, taken.waiting) == (2, 0, {})
    assert stamps(inbox) == before
    assert len(raw_listing(root)) == 14
    assert {"red/100.png", "red/101.png"} <= set(list_files(root / "data" / "raw"))


def test_a_second_look_finds_nothing_new(root: Path, inbox: Path) -> None:
    take_over(inbox, root, 60.0)
    before = (root / "data" / "raw.dvc").read_bytes()
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.known) == (0, 2)
    assert (root / "data" / "raw.dvc").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "why"),
    [("red/new.png", "less than `retrain.settle_seconds`"), ("red/new.png.part", "somebody is writing it")],
)
def test_what_is_being_written_is_left_for_later(root: Path, inbox: Path, name: str, why: str) -> None:
    draw(inbox / "red" / "new.png", 0, 300)
    if name.endswith(".part"):
        (inbox / "red" / "new.png").rename(inbox / name)
        age(inbox / name)
    taken = take_over(inbox, root, 60.0)

    assert taken.new == 2
    assert why in taken.waiting[name]
    assert "first red/new.png" in taken.words()
    assert len(raw_listing(root)) == 14


def test_an_image_that_was_cut_short_waits_until_it_is_whole(root: Path, inbox: Path) -> None:
    file = inbox / "red" / "100.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    age(file)
    assert take_over(inbox, root, 60.0).waiting["red/100.png"].startswith("not whole")
    file.write_bytes(whole)
    age(file)
    assert take_over(inbox, root, 60.0).new == 1


def test_another_image_of_a_known_name_gets_a_name_of_its_own(root: Path, inbox: Path) -> None:
    old = root / "data" / "raw" / "red" / "000.png"
    before = old.read_bytes()
    draw(inbox / "red" / "000.png", 0, 555)
    age(inbox / "red" / "000.png")
    take_over(inbox, root, 60.0)

    assert old.read_bytes() == before
    assert len([name for name in list_files(root / "data" / "raw" / "red") if name.startswith("000-")]) == 1


def test_the_same_bytes_under_another_name_are_known(root: Path, inbox: Path) -> None:
    draw(inbox / "red" / "copy.png", 0, 1)
    age(inbox / "red" / "copy.png")
    taken = take_over(inbox, root, 60.0)
    assert (taken.new, taken.known) == (2, 1)


def test_images_are_brought_back_before_others_join_them(root: Path, inbox: Path) -> None:
    import shutil

    shutil.rmtree(root / "data" / "raw")
    take_over(inbox, root, 60.0)
    assert len(list_files(root / "data" / "raw")) == 14


def test_a_table_brings_its_rows(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    inbox = tmp_path / "inbox"
    rows = []
    for number in range(6):
        draw(inbox / f"{number}.png", number % 2, number)
        age(inbox / f"{number}.png")
        rows.append(f"{number}.png,{('red', 'green')[number % 2]}")
    (inbox / "labels.csv").write_text("path,label\n" + "\n".join(rows[:4]) + "\n", encoding="utf-8")
    age(inbox / "labels.csv")
    assert take_over(inbox, project.root, 60.0).new == 4, "what has no row is not of the data"
    (inbox / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    age(inbox / "labels.csv")
    assert take_over(inbox, project.root, 60.0).new == 2
    table = (project.root / "data" / "raw" / "labels.csv").read_text(encoding="utf-8")
    assert table.count(".png") == 6


def test_a_table_that_is_being_written_holds_all_back(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    draw(tmp_path / "inbox" / "0.png", 0, 0)
    age(tmp_path / "inbox" / "0.png")
    (tmp_path / "inbox" / "labels.csv").write_text("path,label\n0.png,red\n", encoding="utf-8")
    taken = take_over(tmp_path / "inbox", project.root, 60.0)
    assert (taken.new, list(taken.waiting)) == (0, ["labels.csv"])


def test_no_folder_is_an_error_that_names_the_key(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"retrain\.inbox"):
        take_over(tmp_path / "none", root, 60.0)


def test_what_is_no_form_of_images_changes_nothing(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "inbox" / "loose.png", 0, 900)
    age(tmp_path / "inbox" / "loose.png")
    before = (root / "data" / "raw.dvc").read_bytes()
    with pytest.raises(DataError, match="no folders of images"):
        take_over(tmp_path / "inbox", root, 60.0)
    assert (root / "data" / "raw.dvc").read_bytes() == before
    assert len(list_files(Project(root).root / "data" / "raw")) == 12
