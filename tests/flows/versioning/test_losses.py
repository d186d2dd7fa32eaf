"""Images that are neither in data/raw nor in DVC's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from projects import Project, draw_classes

from graft.flows.versioning.dvc import raw_hash
from graft.flows.versioning.losses import require_no_loss
from graft.tasks.common.core.errors import DataError

GONE = "red/000.png"


@pytest.fixture
def root(empty_project: Project) -> Path:
    """A project whose preprocess has run, by dvc.lock; nothing of it is committed."""
    root = empty_project.root
    draw_classes(root / "data" / "raw", each=2)
    empty_project.dvc("add", "--quiet", "data/raw")
    write_lock(root)
    return root


def write_lock(root: Path) -> None:
    entry = {"cmd": "x", "deps": [{"path": "data/raw", "md5": raw_hash(root)}]}
    lock = {"schema": "2.0", "stages": {"preprocess": entry}}
    (root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")


def lose(root: Path) -> None:
    """Removes an image here and in DVC's cache."""
    image = root / "data" / "raw" / GONE
    digest = hashlib.md5(image.read_bytes()).hexdigest()
    image.unlink()
    (root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()


def test_a_loss_is_named_with_what_restores_it(root: Path) -> None:
    require_no_loss(root)
    lose(root)

    with pytest.raises(
        DataError, match=rf"1 image is neither[\s\S]*{GONE}[\s\S]*restore them: `dvc pull data/raw.dvc`"
    ):
        require_no_loss(root)


def test_a_loss_that_dvc_has_written_to_data_raw_is_known_from_the_last_commit(root: Path) -> None:
    project = Project(root)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "images")
    lose(root)
    project.dvc("add", "--quiet", "data/raw")  # as `dvc repro` does

    with pytest.raises(DataError, match=rf"{GONE}[\s\S]*`git checkout HEAD -- data/raw.dvc`[\s\S]*`dvc pull"):
        require_no_loss(root)
    project.git("commit", "--quiet", "--message", "it is to go", "data/raw.dvc")
    require_no_loss(root)


def test_a_loss_before_the_first_commit_is_known_from_the_last_run(root: Path) -> None:
    project = Project(root)
    lose(root)
    project.dvc("add", "--quiet", "data/raw")

    with pytest.raises(DataError, match=GONE):
        require_no_loss(root)
    project.git("add", "data/raw.dvc")
    project.git("commit", "--quiet", "--message", "it is to go")
    require_no_loss(root)


def test_a_loss_that_was_agreed_to_is_not_asked_about_when_images_come(root: Path) -> None:
    project = Project(root)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "images and their run")
    lose(root)
    project.dvc("add", "--quiet", "data/raw")
    project.git("commit", "--quiet", "--message", "it is to go", "data/raw.dvc")

    draw_classes(root / "data" / "raw", each=3)
    (root / "data" / "raw" / GONE).unlink()
    project.dvc("add", "--quiet", "data/raw")

    require_no_loss(root)
