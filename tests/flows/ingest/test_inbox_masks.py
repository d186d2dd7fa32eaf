"""Masks of defects that lie in the inbox beside their images."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from projects import draw_tile, draw_tiles, make_project

from graft.flows.ingest.inbox import take_over
from graft.flows.versioning.dvc import raw_listing
from graft.tasks.preprocess.scan import list_files, scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with tiles in the layout of MVTec AD."""
    project = make_project(tmp_path / "project", head={"task": "anomaly"})
    draw_tiles(project.root / "data" / "raw", good=3, test_good=1, defects=1)
    project.dvc("add", "data/raw")
    return project.root


def drop(inbox: Path, number: int, name: str, ending: str = "_mask", kind: str = "scratch") -> None:
    """A tile with a scratch, and its mask."""
    mask = draw_tile(inbox / "test" / kind / f"{name}.png", number, kind)
    file = inbox / "ground_truth" / kind / f"{name}{ending}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    mask.save(file)
    for one in inbox.rglob("*.png"):
        os.utime(one, (time.time() - 3600,) * 2)


def masks(root: Path) -> dict[str, str]:
    found = scan(root / "data" / "raw", "anomaly").dropna(subset=["mask"])
    return dict(zip(found["path"], found["mask"], strict=True))


def test_a_mask_comes_with_its_image_and_is_no_image(root: Path, tmp_path: Path) -> None:
    drop(tmp_path / "inbox", 50, "050")
    taken = take_over(tmp_path / "inbox", root, 60.0)

    assert (taken.new, taken.known, taken.waiting) == (1, 0, {})
    assert masks(root)["test/scratch/050.png"] == "ground_truth/scratch/050_mask.png"

    again = take_over(tmp_path / "inbox", root, 60.0)
    assert (again.new, again.known, again.waiting) == (0, 1, {})


@pytest.mark.parametrize("ending", ["_mask", ""])
def test_a_mask_gets_the_new_name_of_its_image(root: Path, tmp_path: Path, ending: str) -> None:
    drop(tmp_path / "inbox", 51, "000", ending)
    assert take_over(tmp_path / "inbox", root, 60.0).new == 1

    (renamed,) = {name for name in list_files(root / "data" / "raw") if name.startswith("test/scratch/000-")}
    mask = masks(root)[renamed]
    assert mask == renamed.replace("test", "ground_truth").replace(".png", f"{ending}.png")
    assert (root / "data" / "raw" / mask).read_bytes() == (
        tmp_path / "inbox" / "ground_truth" / "scratch" / f"000{ending}.png"
    ).read_bytes()


def test_an_image_waits_for_its_mask_and_a_mask_for_its_image(root: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    drop(inbox, 52, "052")
    drop(inbox, 53, "053")
    os.utime(inbox / "ground_truth/scratch/052_mask.png")
    (inbox / "test/scratch/053.png").unlink()
    before = raw_listing(root)

    taken = take_over(inbox, root, 60.0)

    assert taken.new == 0
    assert "its mask" in taken.waiting["test/scratch/052.png"]
    assert taken.waiting["ground_truth/scratch/053_mask.png"] == "a mask without an image"
    assert raw_listing(root) == before


def test_a_mask_that_comes_after_its_image_is_named(root: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    drop(inbox, 54, "054")
    mask = inbox / "ground_truth/scratch/054_mask.png"
    content = mask.read_bytes()
    mask.unlink()
    assert take_over(inbox, root, 60.0).new == 1

    mask.write_bytes(content)
    os.utime(mask, (time.time() - 3600,) * 2)
    assert "already" in take_over(inbox, root, 60.0).waiting["ground_truth/scratch/054_mask.png"]


def test_a_table_in_the_inbox_names_masks(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", head={"task": "anomaly"})
    inbox = tmp_path / "inbox"
    draw_tile(inbox / "1.png", 1)
    draw_tile(inbox / "2.png", 2, "hole").save(inbox / "2m.png")
    (inbox / "labels.csv").write_text("path,label,mask\n1.png,good,\n2.png,hole,./2m.png\n", encoding="utf-8")
    for one in inbox.iterdir():
        os.utime(one, (time.time() - 3600,) * 2)

    taken = take_over(inbox, project.root, 60.0)

    assert (taken.new, taken.waiting) == (2, {})
    assert masks(project.root) == {"images/2.png": "images/2m.png"}


def test_masks_wait_where_the_task_uses_none(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    drop(tmp_path / "inbox", 1, "1")
    draw_tile(tmp_path / "inbox" / "train" / "scratch" / "2.png", 2, "scratch")
    taken = take_over(tmp_path / "inbox", project.root, 0.0)
    assert "head.task: classification" in taken.waiting["ground_truth/scratch/1_mask.png"]
    assert not any(name.startswith("ground_truth") for name in raw_listing(project.root))
