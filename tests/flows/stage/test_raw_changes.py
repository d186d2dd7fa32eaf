import json
from pathlib import Path

import pytest
from projects import Project

from graft.flows.stage.raw_changes import difference, note, refuse_changes, state_of
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_folder_that_stays_as_it_is_is_not_refused(raw: Path) -> None:
    refuse_changes(state_of(raw), raw)


def test_files_that_come_go_or_change_are_named(raw: Path) -> None:
    before = state_of(raw)
    (raw / "a" / "1.png").write_text("other content")
    (raw / "a" / "2.png").unlink()
    (raw / "c.png").write_text("new")

    assert str(difference(before, state_of(raw))) == "1 added (c.png), 1 missing (a/2.png), 1 changed (a/1.png)"
    with pytest.raises(DataError, match="changed while the stage preprocess worked"):
        refuse_changes(before, raw)


def test_a_run_that_has_used_all_files_has_nothing_to_say(finished: Project) -> None:
    assert note(Paths(finished.root), since=1e12) == ""


def test_an_image_that_came_during_the_run_is_named_at_its_end(project: Project) -> None:
    (project.root / "data" / "raw" / "red" / "new.png").write_bytes(b"new")

    assert "1 added (red/new.png); the next `graft repro` takes" in note(Paths(project.root), since=1e12)


def test_an_image_that_was_overwritten_during_the_run_is_named_at_its_end(project: Project) -> None:
    place = next((project.root / "data" / "raw" / "red").iterdir())
    begun = place.stat().st_mtime - 60
    old = {name: state for name, state in state_of(project.root / "data" / "raw").items() if state[1] < begun * 1e9}

    assert not old
    assert "changed" in note(Paths(project.root), since=begun - 1e6)


def test_a_folder_that_dvc_hashed_after_preprocess_had_ended_is_told(project: Project) -> None:
    run = project.root / "runs" / "preprocess.json"
    told = json.loads(run.read_text())
    told["inputs"]["data/raw"] = "0" * 32 + ".dir"
    run.unlink()
    run.write_text(json.dumps(told))

    assert "graft repro --force preprocess" in note(Paths(project.root), since=1e12)
