"""What the last stage says of files in data/raw that came, went or changed during the run."""

import json
import os

from projects import Project

from graft.flows.stage.raw_changes import note
from graft.tasks.common.core.paths import Paths


def test_a_run_that_has_used_all_files_has_nothing_to_say(finished: Project) -> None:
    assert note(Paths(finished.root), since=1e12) == ""


def test_an_image_that_came_during_the_run_is_named_at_its_end(project: Project) -> None:
    (project.root / "data" / "raw" / "red" / "new.png").write_bytes(b"new")

    assert "1 added (red/new.png); the next `graft repro` takes" in note(Paths(project.root), since=1e12)


def test_an_image_that_was_overwritten_during_the_run_is_named_at_its_end(project: Project) -> None:
    place = next((project.root / "data" / "raw" / "red").iterdir())
    os.utime(place, (2e9, 2e9))

    assert f"1 changed (red/{place.name}); the next" in note(Paths(project.root), since=1.9e9)


def test_a_folder_that_dvc_hashed_after_preprocess_had_ended_is_told(project: Project) -> None:
    run = project.root / "runs" / "preprocess.json"
    told = json.loads(run.read_text())
    told["inputs"]["data/raw"] = "0" * 32 + ".dir"
    run.unlink()
    run.write_text(json.dumps(told))

    assert "graft repro --force preprocess" in note(Paths(project.root), since=1e12)
