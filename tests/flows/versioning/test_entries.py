"""Entries of data/raw at which DVC would hang, or fail without their names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import Project, draw_classes

from graft.flows.versioning.entries import refuse_what_dvc_cannot_hash
from graft.tasks.common.core.errors import DataError


def latin_1(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: os.mkfifo(folder / "a.png"), r"red/a\.png \(a FIFO"),
        (lambda folder: (folder / "a.png").symlink_to("gone.png"), r"red/a\.png \(a broken link"),
        (latin_1, r"red/caf\\xe9\.png \(its name is not UTF-8"),
        (lambda folder: os.mkfifo(folder / ".a.png"), r"red/\.a\.png \(a FIFO"),
    ],
    ids=["FIFO", "broken link", "not UTF-8", "hidden"],
)
def test_what_dvc_cannot_hash_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    raw = draw_classes(tmp_path, each=1)
    make(raw / "red")

    with pytest.raises(DataError, match=told):
        refuse_what_dvc_cannot_hash(raw)


def test_links_and_other_hidden_files_are_left_to_dvc(tmp_path: Path) -> None:
    raw = draw_classes(tmp_path, each=1)
    (raw / "red" / "up").symlink_to("..")
    (raw / "red" / "same.png").symlink_to("000.png")
    (raw / ".DS_Store").write_bytes(b"x")

    refuse_what_dvc_cannot_hash(raw)
    refuse_what_dvc_cannot_hash(tmp_path / "no folder")


@pytest.mark.parametrize("command", ["repro", "run", "status"])
def test_each_command_names_a_file_whose_name_is_not_utf_8(empty_project: Project, command: str) -> None:
    raw = draw_classes(empty_project.root / "data" / "raw", each=1)
    empty_project.dvc("add", "--quiet", "data/raw")
    latin_1(raw / "red")

    done = empty_project.graft_here(command, check=False)

    assert done.returncode == 2
    assert "red/caf\\xe9.png (its name is not UTF-8)" in done.stderr


def test_a_fifo_does_not_hang_a_run(empty_project: Project) -> None:
    os.mkfifo(draw_classes(empty_project.root / "data" / "raw", each=1) / "red" / "a.png")

    done = empty_project.graft_here("repro", check=False)

    assert done.returncode == 2
    assert "red/a.png (a FIFO" in done.stderr
