"""New images without a label by night: what comes, what waits, whom to ask."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from projects import Project

from graft.flows.labelling import choice
from graft.flows.labelling import night as module
from graft.flows.labelling.choice import COLUMNS, Asked
from graft.flows.labelling.night import TABLE, Brought, bring_pool, choose_to_ask, request, rows_of
from graft.flows.labelling.pool import TRACKED, read_pool
from graft.flows.versioning.dvc import raw_hash, raw_listing
from graft.tasks.common.core.errors import GraftError
from graft.tasks.preprocess.label_history import Answer, append_answers, now


@pytest.fixture
def inbox(tmp_path: Path, pictures: Path) -> Path:
    """With twelve pictures that no project here has, an hour old."""
    folder = tmp_path / "inbox"
    shutil.copytree(pictures, folder / "unlabelled")
    for file in folder.rglob("*.png"):
        os.utime(file, (0, 0))
    return folder


def label(project: Project, count: int, colour_of: Callable[[str], str]) -> list[str]:
    """Labels by day; the images stay in the pool."""
    rows = read_pool(project.root).head(count)
    answers = [Answer(row.image_id, colour_of(row.name), "ann", now(), "margin", "") for row in rows.itertuples()]
    append_answers(project.root / "data" / "labels.csv", answers)
    return list(rows["image_id"])


def test_images_without_a_label_come_into_the_pool_and_known_ones_do_not_come_again(
    project: Project, inbox: Path
) -> None:
    raw = raw_hash(project.root)
    brought = bring_pool(project.root, inbox, 60.0)
    assert (brought.new, brought.labelled) == (12, 0)
    assert brought.words() == "pool: 12 images without a label came"
    assert set(read_pool(project.root)["why"]) == {"inbox"}
    assert raw_hash(project.root) == raw
    assert not bring_pool(project.root, inbox, 60.0).changed


def test_a_file_that_is_being_written_waits_and_what_is_no_image_is_named(project: Project, inbox: Path) -> None:
    folder = inbox / "unlabelled"
    os.utime(folder / "0" / "100.png")
    (folder / "0" / "101.png").rename(folder / "0" / "101.png.part")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    os.utime(folder / "notes.txt", (0, 0))
    os.mkfifo(folder / "fifo.png")
    brought = bring_pool(project.root, inbox, 60.0)
    assert brought.new == 10
    assert set(brought.waiting) == {"0/100.png", "0/101.png.part", "fifo.png"}
    assert set(brought.refused) == {"notes.txt"}
    assert "1 refused: notes.txt" in brought.words()


def test_without_an_inbox_or_new_files_dvc_is_not_called(
    pooled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_check_out", lambda root: pytest.fail("nothing is to be checked out"))
    assert not bring_pool(pooled.root, None, 60.0).changed
    assert bring_pool(pooled.root, tmp_path / "not-there", 60.0) == Brought()


def test_labels_of_the_day_bring_their_images_into_the_data(pooled: Project, colour_of: Callable[[str], str]) -> None:
    before = set(raw_listing(pooled.root).values())
    labelled = label(pooled, 5, colour_of)
    assert bring_pool(pooled.root, None, 60.0).labelled == 5
    assert set(raw_listing(pooled.root).values()) == before | {*labelled}
    assert len(read_pool(pooled.root)) == 31
    assert not bring_pool(pooled.root, None, 60.0).changed


def test_a_checkout_without_the_images_gets_them_first(pooled: Project, colour_of: Callable[[str], str]) -> None:
    """Otherwise the labelled images would be all that data/raw has."""
    before = len(raw_listing(pooled.root))
    label(pooled, 3, colour_of)
    for name in ("raw", "pool"):
        shutil.rmtree(pooled.root / "data" / name)
    assert bring_pool(pooled.root, None, 60.0).labelled == 3
    assert len(raw_listing(pooled.root)) == before + 3


def test_a_second_try_does_the_work_once(pooled: Project, inbox: Path, colour_of: Callable[[str], str]) -> None:
    """As after a failure: the .dvc files are those of the commit again, the folders are not."""
    tracked = [pooled.root / "data" / "raw.dvc", pooled.root / TRACKED]
    committed = [file.read_bytes() for file in tracked]
    before = len(raw_listing(pooled.root))
    label(pooled, 4, colour_of)
    once = bring_pool(pooled.root, inbox, 60.0)
    for file, content in zip(tracked, committed, strict=True):
        file.write_bytes(content)
    (pooled.root / "data" / "pool" / "half.png").write_bytes(b"what a killed run left")
    again = bring_pool(pooled.root, inbox, 60.0)
    assert (again.new, again.labelled) == (once.new, once.labelled)
    assert len(raw_listing(pooled.root)) == before + 4
    assert not (pooled.root / "data" / "pool" / "half.png").exists()


def test_a_pool_that_came_from_git_replaces_the_one_that_is_here(pooled: Project, pictures: Path) -> None:
    """`git pull` brings data/pool.dvc alone."""
    newer = (pooled.root / TRACKED).read_bytes()
    rows = len(read_pool(pooled.root))
    ids = list(read_pool(pooled.root)["image_id"].head(2))
    from graft.flows.labelling.pool import remove_from_pool

    remove_from_pool(pooled.root, ids)
    assert len(read_pool(pooled.root)) == rows - 2
    (pooled.root / TRACKED).write_bytes(newer)
    assert len(read_pool(pooled.root)) == rows


def test_data_that_follow_another_place_get_no_images(
    pooled: Project, inbox: Path, colour_of: Callable[[str], str]
) -> None:
    """As `dvc import-url` has made it: the next update would take them out again."""
    raw = pooled.root / "data" / "raw.dvc"
    with raw.open("a", encoding="utf-8") as file:
        file.write("deps:\n- path: /elsewhere\n")
    before = raw_hash(pooled.root)
    label(pooled, 2, colour_of)
    brought = bring_pool(pooled.root, inbox, 60.0)
    assert (brought.labelled, raw_hash(pooled.root)) == (0, before)
    assert "2 labelled images (data/raw follows another place: add them there)" in brought.words()


def test_the_choice_is_written_for_people(pooled: Project, tmp_path: Path) -> None:
    asked = choose_to_ask(pooled.root, tmp_path, 5)
    assert asked is not None
    table = pd.read_csv(tmp_path / ".graft" / TABLE)
    assert list(table["image_id"]) == list(asked.table["image_id"])
    assert len(rows_of(asked)) == 5
    assert "label" not in rows_of(asked)[0]
    title, text = request(asked, "https://label.example.org")
    assert title == "5 pictures would help most"
    assert text.startswith("Of 36 images without a label, ")
    assert text.endswith("Label them: https://label.example.org")
    assert request(asked, "")[1].endswith("`git pull` and `graft label --commit`, in the project")


def test_nobody_is_asked_about_an_empty_pool(project: Project, tmp_path: Path) -> None:
    assert choose_to_ask(project.root, tmp_path, 5) is None
    assert not (tmp_path / ".graft" / TABLE).exists()


def test_nobody_is_asked_if_only_near_copies_are_left(
    pooled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Asked(pd.DataFrame({name: [] for name in COLUMNS}), "margin", 3)
    monkeypatch.setattr(choice, "next_images", lambda root, number: none)
    assert choose_to_ask(pooled.root, tmp_path, 5) is None


def test_an_inbox_that_cannot_be_copied_is_an_error(
    project: Project, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("graft.flows.labelling.pool.copy_regular", full)
    with pytest.raises(GraftError, match="cannot be copied into the pool"):
        bring_pool(project.root, inbox, 60.0)


def test_nothing_to_tell_is_an_empty_text() -> None:
    assert Brought().words() == ""
    assert Brought(waiting={"a.png": "changed 3 s ago"}).words() == "pool: 1 waiting: a.png (changed 3 s ago)"
