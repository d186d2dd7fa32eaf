"""A model's digest: of every file, wherever it lies and whatever it is called."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graft.flows.registry import integrity
from graft.flows.versioning.git import git


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
    (folder / "code" / "a.py").write_text("a = 1\n", encoding="utf-8")
    return folder


def test_a_copy_has_the_same_digest_and_what_python_and_mlflow_add_does_not_count(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "code" / "__pycache__" / "__pycache__").mkdir(parents=True)
    (copy / "code" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (copy / "registered_model_meta").write_text("model_name: x\n", encoding="utf-8")
    integrity.remove_by_products(copy)
    assert integrity.digest(copy) == integrity.digest(model)
    assert not list(copy.rglob("*.pyc"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda model: (model / "code" / "a.py").write_text("a = 2\n", encoding="utf-8"),
    "another name": lambda model: (model / "code" / "a.py").rename(model / "code" / "b.py"),
    "one more": lambda model: (model / "code" / "numpy.py").touch(),
    "one less": lambda model: (model / "MLmodel").unlink(),
    "a link to a folder": lambda model: (model / "code" / "numpy").symlink_to(model.parent),
    "a link to nowhere": lambda model: (model / "code" / "numpy.py").symlink_to("nowhere"),
    "compiled code as a link": lambda model: (model / "code" / "__pycache__").symlink_to(model.parent),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_digest(model: Path, change: str) -> None:
    before = integrity.digest(model)
    CHANGES[change](model)
    integrity.remove_by_products(model)
    assert integrity.digest(model) != before


def test_all_worktrees_of_a_repository_remember_the_same(tmp_path: Path) -> None:
    for name in ("project", "plain"):
        (tmp_path / name).mkdir()
    project, other = tmp_path / "project", tmp_path / "other"
    git(project, "init", "--quiet", doing="a test")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "first", doing="a test")
    git(project, "worktree", "add", "--quiet", str(other), doing="a test")
    key = ("graft", "3", "run")
    integrity.remember(project, key, "sha256:1")
    integrity.remember(other, ("graft", "4", "run"), "sha256:4")
    integrity.remember(other, key, "sha256:2")
    assert integrity.at_hand(project) == {key: "sha256:2", ("graft", "4", "run"): "sha256:4"}
    assert git(project, "status", "--porcelain", doing="a test") == ""
    integrity.remember(tmp_path / "plain", key, "sha256:3")
    assert integrity.at_hand(tmp_path / "plain") == {key: "sha256:3"}, "without git it is in .graft"


def test_digests_that_are_remembered_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda number: integrity.remember(tmp_path, ("graft", str(number), "run"), "sha256:1"), range(40))
        )

    assert len(integrity.at_hand(tmp_path)) == 40
