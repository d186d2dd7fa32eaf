"""MLflow's store is made while images are brought in, so that the first stage need not wait for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from projects import Project, draw_classes

from graft.flows.tracking.store import run_page


def test_an_import_leaves_a_store_that_is_ready(empty_project: Project, tmp_path: Path) -> None:
    draw_classes(tmp_path / "source", each=1)

    empty_project.graft("import", str(tmp_path / "source"))

    with sqlite3.connect(empty_project.root / "mlflow.db") as store:
        assert store.execute("select name from experiments where name = 'graft'").fetchall() == [("graft",)]


def test_an_import_succeeds_where_no_store_can_be_made(empty_project: Project, tmp_path: Path) -> None:
    draw_classes(tmp_path / "source", each=1)
    (empty_project.root / "mlflow.db").symlink_to(tmp_path / "nowhere" / "mlflow.db")

    assert "3" in empty_project.graft_here("import", str(tmp_path / "source")).stdout


def test_a_link_to_a_run_opens_the_pages_for_model_training() -> None:
    assert run_page("1", "abc") == "#/experiments/1/runs/abc?workflowType=machine_learning"
