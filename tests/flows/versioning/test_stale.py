"""A folder of images that changes under preprocess, and a manifest of images that are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from projects import Project, draw, draw_classes

from graft.flows.versioning import stale
from graft.tasks.common.core.errors import DataError

FIRST = "blue/000.png"


def write(raw: Path) -> None:
    draw(raw / FIRST, 0, 99)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (write, FIRST),
        (lambda raw: (raw / FIRST).unlink(), FIRST),
        (lambda raw: draw(raw / "red" / "new.png", 0, 5), "red/new.png"),
    ],
    ids=["written", "removed", "added"],
)
def test_a_change_while_the_images_are_read_is_an_error_that_names_the_file(
    tmp_path: Path, change: Callable[[Path], object], named: str
) -> None:
    raw = draw_classes(tmp_path, each=1)

    told = rf"changed while preprocess read it[\s\S]*1 files: {named}"
    with pytest.raises(DataError, match=told), stale.unchanged(raw):
        change(raw)


def test_images_that_stay_as_they_are_are_no_error(tmp_path: Path) -> None:
    raw = draw_classes(tmp_path, each=1)
    with stale.unchanged(raw):
        (raw / FIRST).read_bytes()


def test_the_manifest_of_a_finished_project_lists_its_images(finished: Project) -> None:
    assert stale.other_images(finished.root) == ""


def test_masks_are_no_images_that_the_manifest_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["train/good/0.png", "test/crack/0.png"]
    masks = ["ground_truth/crack/0_mask.png", "ground_truth/crack/9_mask.png"]  # the second one is of no image
    (tmp_path / "data" / "manifest").mkdir(parents=True)
    manifest = pd.DataFrame({"path": names, "image_id": ["a", "b"], "mask": [None, masks[0]]})
    manifest.to_parquet(tmp_path / "data" / "manifest" / "manifest.parquet")
    manifest[:0].to_parquet(tmp_path / "data" / "manifest" / "rejected.parquet")
    monkeypatch.setattr(stale, "raw_listing", lambda root: dict(zip([*names, *masks], "abcd", strict=True)))
    for name in ("raw_hash", "locked_raw"):
        monkeypatch.setattr(stale, name, lambda given: "hash")

    assert stale.other_images(tmp_path) == ""


def test_a_manifest_of_other_images_is_told_and_graft_repro_makes_it_again(project: Project) -> None:
    file = project.root / "data" / "manifest" / "manifest.parquet"
    right = file.read_bytes()
    manifest = pd.read_parquet(file)
    manifest["path"] = manifest["path"].replace({FIRST: "blue/gone.png"})
    manifest.to_parquet(file)
    project.dvc("commit", "--force", "preprocess")  # as DVC does when the folder is as before once the stage has ended

    told = "1 missing, such as blue/gone.png; 1 new, such as blue/000.png"
    assert stale.other_images(project.root) == told
    done = project.dvc("repro", "--single-item", "features", check=False)
    assert done.returncode != 0
    assert told in done.stderr
    assert "run `graft repro`" in done.stderr

    done = project.graft("repro", "preprocess")
    assert f"preprocess had seen other images than data/raw has ({told})" in done.stderr
    assert stale.other_images(project.root) == ""
    assert file.read_bytes() == right
