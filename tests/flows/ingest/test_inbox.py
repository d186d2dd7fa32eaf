"""The inbox: complete files are imported once; none is moved or deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from projects import Project, draw, draw_classes, made_once, make_project

from graft.flows.ingest import inbox as inbox_module
from graft.flows.ingest import inbox_files as files_module
from graft.flows.ingest.converting import shard_images
from graft.flows.ingest.inbox import take_over
from graft.flows.versioning.dvc import raw_listing
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.preprocess.scan import list_files


def twelve_images(root: Path) -> None:
    project = make_project(root)
    draw_classes(root / "data" / "raw", each=4)
    project.dvc("add", "data/raw")


@pytest.fixture
def root(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with twelve images under DVC."""
    made, _ = made_once(tmp_path_factory, "twelve-images", twelve_images)
    return Project(made).copy(tmp_path / "project").root


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


def test_images_without_a_label_are_left_to_the_pool(root: Path, inbox: Path) -> None:
    draw(inbox / "unlabelled" / "new.png", 0, 900)
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.waiting) == (2, {})
    assert not [name for name in raw_listing(root) if "new.png" in name]


def test_a_second_look_finds_nothing_new(root: Path, inbox: Path) -> None:
    take_over(inbox, root, 60.0)
    before = (root / "data" / "raw.dvc").read_bytes()
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.known) == (0, 2)
    assert (root / "data" / "raw.dvc").read_bytes() == before


def test_images_in_shards_get_another_shard(root: Path, inbox: Path) -> None:
    """A file whose name an image in a shard has gets another name; one whose content is in a shard is known."""
    draw(inbox / "red" / "000.png", 0, 300)
    draw(inbox / "green" / "known.png", 1, 0)
    for file in inbox.rglob("*.png"):
        age(file)
    shard_images(root)
    first = (root / "data" / "raw" / "shard-000000.tar").read_bytes()

    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.known, taken.waiting) == (3, 1, {})
    assert len(raw_listing(root)) == 15
    shards = sorted(file.name for file in (root / "data" / "raw").glob("*.tar"))
    assert shards == ["shard-000000.tar", "shard-000001.tar"]
    assert (root / "data" / "raw" / "shard-000000.tar").read_bytes() == first
    assert take_over(inbox, root, 60.0).known == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [("red/new.png", "less than `retrain.settle_seconds`"), ("red/new.png.part", "still being written")],
)
def test_what_is_being_written_is_left_for_later(root: Path, inbox: Path, name: str, why: str) -> None:
    draw(inbox / "red" / "new.png", 0, 300)
    if name.endswith(".part"):
        (inbox / "red" / "new.png").rename(inbox / name)
        age(inbox / name)
    taken = take_over(inbox, root, 60.0)

    assert taken.new == 2
    assert why in taken.waiting[name]
    assert f"1 waiting: {name} (" in taken.words()
    assert len(raw_listing(root)) == 14


def test_a_truncated_image_waits_until_it_is_complete(root: Path, inbox: Path) -> None:
    file = inbox / "red" / "100.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    age(file)
    assert take_over(inbox, root, 60.0).waiting["red/100.png"].startswith("incomplete")
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
    as_from_excel = "Filename; Class\r\n" + "\r\n".join(rows).replace(",", "; ")
    (inbox / "labels.csv").write_bytes(as_from_excel.encode("utf-8-sig"))
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


def test_what_fits_no_class_waits_and_the_rest_is_imported(root: Path, inbox: Path) -> None:
    for name in ("loose.png", "train/red/1.png"):
        draw(inbox / name, 0, 900 + len(name))
        age(inbox / name)

    taken = take_over(inbox, root, 60.0)

    assert taken.new == 2
    assert taken.waiting == {
        "loose.png": "it is not in a folder of a class",
        "train/red/1.png": "train/ is the name of a split, among folders of classes",
    }
    assert "2 waiting: loose.png (it is not in a folder of a class); train/red/1.png (" in taken.words()


def test_a_folder_around_known_classes_is_no_class(root: Path, inbox: Path) -> None:
    for name in ("photos/red/1.png", "orange/red-brown/1.png"):
        draw(inbox / name, 0, 900 + len(name))
        age(inbox / name)

    taken = take_over(inbox, root, 60.0)

    why = "photos/ is a folder around classes: move these to the top of the inbox"
    assert (taken.new, taken.waiting) == (3, {"photos/red/1.png": why})


def test_the_first_images_wait_in_a_folder_around_all_classes(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for name in ("photos/red/1.png", "photos/blue/2.png"):
        draw(tmp_path / "inbox" / name, 0, len(name))
        age(tmp_path / "inbox" / name)

    taken = take_over(tmp_path / "inbox", project.root, 60.0)

    assert (taken.new, set(taken.waiting)) == (0, {"photos/red/1.png", "photos/blue/2.png"})
    assert "photos/ is a folder around classes" in taken.words()


def test_an_archive_waits_to_be_unpacked(root: Path, inbox: Path) -> None:
    for name in ("photos.zip", "red/more.tar.gz"):
        (inbox / name).write_bytes(b"x")
        age(inbox / name)

    assert set(take_over(inbox, root, 60.0).waiting.values()) == {"it is an archive: unpack it"}


def test_names_are_tidied_as_by_an_import_and_what_is_no_image_waits(root: Path, inbox: Path) -> None:
    (inbox / "red").rename(inbox / "red ")
    draw(inbox / "red" / "100.png", 0, 102)
    (inbox / "red" / "notes.txt").write_text("x", encoding="utf-8")
    for file in (inbox / "red").iterdir():
        age(file)

    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.waiting) == (3, {"red/notes.txt": "it is not an image, by its suffix"})
    names = [name for name in raw_listing(root) if "/1" in name]
    assert len(names) == 3
    assert all(name.startswith("red/") for name in names)


def test_only_files_that_fit_nothing_change_nothing(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "inbox" / "loose.png", 0, 900)
    age(tmp_path / "inbox" / "loose.png")
    before = (root / "data" / "raw.dvc").read_bytes()
    assert list(take_over(tmp_path / "inbox", root, 60.0).waiting) == ["loose.png"]
    assert (root / "data" / "raw.dvc").read_bytes() == before
    assert len(list_files(Project(root).root / "data" / "raw")) == 12


def test_links_out_fifos_and_broken_links_wait_and_nothing_else_does(root: Path, inbox: Path, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "secret.png", 0, 999)
    age(tmp_path / "elsewhere" / "secret.png")
    (inbox / "red" / "etc").symlink_to("/etc")
    (inbox / "red" / "secret.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (inbox / "red" / "gone.png").symlink_to("nowhere.png")
    (inbox / "red" / os.fsdecode(b"\xe9.png")).write_bytes(b"x")
    os.mkfifo(inbox / "red" / "fifo.png")
    for name in ("a", "b"):
        (inbox / name).symlink_to(".")

    taken = take_over(inbox, root, 60.0)

    assert taken.new == 2
    assert set(taken.waiting) == {
        "red/etc",
        "red/secret.png",
        "red/gone.png",
        "red/\\xe9.png",
        "red/fifo.png",
    }
    assert "leads out" in taken.waiting["red/etc"]
    assert not [name for name in raw_listing(root) if "secret" in name or "etc" in name]


def test_a_file_that_cannot_be_read_waits_alone(root: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = inbox_module.open_regular

    def refuse(file: Path, within: Path) -> object:  # root reads whatever the permissions are
        if file.name == "100.png":
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, within)

    monkeypatch.setattr(files_module, "open_regular", refuse)
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.waiting) == (1, {"red/100.png": "it cannot be read: Permission denied"})


def test_a_file_that_changes_while_it_is_read_waits(root: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = inbox_module.copy_regular

    def changed(file: Path, within: Path, place: Path) -> None:
        if file.name == "100.png":
            draw(file, 1, 4711)
        copy(file, within, place)

    monkeypatch.setattr(inbox_module, "copy_regular", changed)
    taken = take_over(inbox, root, 60.0)

    assert (taken.new, taken.waiting) == (1, {"red/100.png": "it changed while it was being read"})


def test_images_of_one_split_join_a_project_with_splits(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for split in ("train", "test"):
        draw_classes(project.root / "data" / "raw" / split, each=2)
    project.dvc("add", "data/raw")
    for name in ("train/red/new.png", "train/flat.png", "red/new.png"):
        draw(tmp_path / "inbox" / name, 0, 700 + len(name))
        age(tmp_path / "inbox" / name)

    taken = take_over(tmp_path / "inbox", project.root, 60.0)

    assert (taken.new, list(taken.waiting)) == (1, ["red/new.png", "train/flat.png"])


@pytest.mark.parametrize("table", ["name,label\n0.png,red\n", "path,label\n0.png,\n", ""])
def test_a_table_with_a_fault_holds_its_images_back_and_says_so(tmp_path: Path, table: str) -> None:
    project = make_project(tmp_path / "project")
    draw(tmp_path / "inbox" / "0.png", 0, 0)
    (tmp_path / "inbox" / "labels.csv").write_text(table, encoding="utf-8")
    for file in (tmp_path / "inbox").iterdir():
        age(file)

    taken = take_over(tmp_path / "inbox", project.root, 60.0)

    assert (taken.new, len(taken.waiting)) == (0, 1)
    assert str(project.root) not in taken.words()


def test_a_table_in_the_inbox_of_a_project_of_folders_waits(root: Path, inbox: Path) -> None:
    (inbox / "labels.csv").write_text("path,label\nred/100.png,red\n", encoding="utf-8")
    age(inbox / "labels.csv")
    taken = take_over(inbox, root, 60.0)
    assert (taken.new, list(taken.waiting)) == (0, ["red/100.png", "red/101.png"])
    assert "data/raw has one folder per class" in taken.words()


def test_a_full_disk_is_not_a_files_fault(root: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inbox_module, "copy_regular", full)
    with pytest.raises(GraftError, match="No space left on device"):
        take_over(inbox, root, 60.0)


def test_files_that_have_left_the_inbox_are_forgotten_but_not_those_of_an_unmounted_one(
    root: Path, inbox: Path
) -> None:
    memory = root / ".graft" / "cache" / "inbox.json"
    take_over(inbox, root, 60.0)
    (inbox / "red" / "100.png").unlink()
    take_over(inbox, root, 60.0)
    assert list(read_json(memory)) == [str(inbox / "red" / "101.png")]

    inbox.rename(inbox.with_name("elsewhere"))
    inbox.mkdir()
    take_over(inbox, root, 60.0)
    assert list(read_json(memory)) == [str(inbox / "red" / "101.png")]
