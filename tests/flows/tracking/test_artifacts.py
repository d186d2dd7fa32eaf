"""Artifacts of runs, fetched from a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from graft.flows.tracking.artifacts import fetched_artifacts
from graft.flows.tracking.tracker import Tracker
from graft.tasks.common.core.errors import GraftError

if TYPE_CHECKING:
    from projects import Project


def test_artifacts_are_there_while_the_block_runs(finished: Project) -> None:
    parent = finished.json("runs/head.json")["parent_run_id"]

    with fetched_artifacts(Tracker(finished.root), parent, "dvc.lock", "environment.txt") as folder:
        assert folder is not None
        assert sorted(file.name for file in folder.iterdir()) == ["dvc.lock", "environment.txt"]
        assert "stages:" in (folder / "dvc.lock").read_text(encoding="utf-8")
    assert not folder.exists()


def test_a_run_that_lacks_one_of_them_gives_none(finished: Project) -> None:
    parent = finished.json("runs/head.json")["parent_run_id"]

    with fetched_artifacts(Tracker(finished.root), parent, "dvc.lock", "none.txt") as folder:
        assert folder is None


def test_a_run_that_is_not_in_the_store_is_refused(finished: Project) -> None:
    with (
        pytest.raises(GraftError, match="cannot be fetched from MLflow"),
        fetched_artifacts(Tracker(finished.root), "0" * 32, "dvc.lock"),
    ):
        pass
