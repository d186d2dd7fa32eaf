"""A run with nothing to run, register or judge says so at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import Project, Rerun

from graft.flows.registry.promotion import GATE
from graft.flows.registry.registering import ensure_registered
from graft.flows.retrain.idle import idle_message
from graft.flows.tracking.tracker import Tracker


@pytest.fixture
def judged(project: Project) -> Project:
    """Registered in the store of the copy; its only version is the champion."""
    assert idle_message(project.root) == "", "another store: the package is to be registered there"
    ensure_registered(Tracker(project.root))
    return project


def test_graft_run_says_so_with_the_summary_and_starts_no_server(judged: Project) -> None:
    done = judged.graft_here("run")

    run = judged.json("runs/register.json")["parent_run_id"][:8]
    assert done.stdout.startswith(f"nothing to do: images, code and parameters are unchanged since the run {run}")
    assert "test accuracy" in done.stdout
    assert not (judged.root / ".prefect").exists()
    assert judged.graft_here("run", "--json").stdout.splitlines()[1] == '  "state": "Completed",'


def test_what_would_run_is_not_idle(judged: Project) -> None:
    assert idle_message(judged.root)
    file = judged.root / "data" / "raw" / "red" / "000.png"
    image = file.read_bytes()
    file.unlink()
    assert idle_message(judged.root) == "", "an image is missing that DVC has not noticed yet"
    file.write_bytes(image)
    judged.set("head", l2_max=0.5)
    assert idle_message(judged.root) == ""


def test_a_version_that_the_gate_has_not_judged_is_not_idle(rerun: Rerun, tmp_path: Path) -> None:
    project = rerun.copy(tmp_path / "project")
    tracker = Tracker(project.root)
    ensure_registered(tracker)
    assert idle_message(project.root) == ""

    tracker.client.set_model_version_tag("graft", "2", GATE, "refused: it is worse")
    assert idle_message(project.root)

    tracker.client.set_registered_model_alias("graft", "challenger", "1")
    assert idle_message(project.root) == "", "the alias is to be moved"
