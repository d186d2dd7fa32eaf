"""Where new images come from, unattended."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import Project, draw, draw_classes, made_repository, make_project

from graft.flows.retrain.new_images import bring_new
from graft.flows.retrain.worktree import Workspace, prepare
from graft.flows.runtime.params import RetrainParams
from graft.flows.versioning.dvc import listing_of, raw_hash
from graft.tasks.common.core.errors import DataError, GraftError


def workspace_of(project: Project) -> Workspace:
    return prepare(project.root, RetrainParams())


def test_a_folder_that_dvc_follows_brings_what_is_new_there(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    bucket = draw_classes(tmp_path / "bucket", each=2)
    project.dvc("import-url", "--quiet", str(bucket), "data/raw")
    made_repository(project, tmp_path)
    params = RetrainParams(source="import-url")
    assert bring_new(workspace_of(project), params) == f"import-url: nothing new at {bucket}"

    draw(bucket / "red" / "new.png", 0, 900)
    workspace = workspace_of(project)

    assert bring_new(workspace, params) == f"import-url: new images at {bucket}"
    assert len(listing_of(workspace.root, raw_hash(workspace.root)) or {}) == 7
    assert not (project.root / "data" / "raw" / "red" / "new.png").exists(), "the checkout is as it was"


def test_images_that_were_not_imported_from_anywhere_cannot_be_asked_for(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    draw_classes(project.root / "data" / "raw", each=2)
    project.dvc("add", "data/raw")
    made_repository(project, tmp_path)
    with pytest.raises(DataError, match=r"retrain\.source is import-url") as wrong:
        bring_new(workspace_of(project), RetrainParams(source="import-url"))
    assert "without `deps`" in str(wrong.value)


def test_an_inbox_may_lie_in_the_project(tmp_path: Path) -> None:
    project = made_repository(make_project(tmp_path / "project"), tmp_path)
    draw_classes(project.root / "inbox", each=2)
    workspace = workspace_of(project)
    said = bring_new(workspace, RetrainParams(source="inbox", inbox="inbox", settle_seconds=0))
    assert said == "inbox: 6 new files imported, 0 known already, 0 waiting"
    assert len(listing_of(workspace.root, raw_hash(workspace.root)) or {}) == 6


def test_a_branch_without_images_says_what_to_do(tmp_path: Path) -> None:
    project = made_repository(make_project(tmp_path / "project"), tmp_path)
    with pytest.raises(GraftError, match=r"main has no data/raw\.dvc"):
        bring_new(workspace_of(project), RetrainParams())


def test_an_inbox_needs_its_folder() -> None:
    with pytest.raises(ValueError, match="inbox needs a folder"):
        RetrainParams(source="inbox")
    with pytest.raises(ValueError, match="notify takes"):
        RetrainParams(notify=("somebody",))
