"""graft.lock: which code each stage runs, what an upgrade changes, and what is said about it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import Project

from graft.tasks.code import FILE, Change, code_of, lock_text, locked_code, record_code
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES

NOW = version("graft")


@pytest.fixture
def locked(tmp_path: Path) -> dict[str, Any]:
    """The content of graft.lock in a project of the installed code."""
    record_code(tmp_path)
    return read(tmp_path)


def read(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / FILE).read_text(encoding="utf-8"))


def write(root: Path, content: dict[str, Any]) -> None:
    (root / FILE).write_text(lock_text(content), encoding="utf-8")


def test_a_new_project_gets_the_code_of_every_stage(tmp_path: Path) -> None:
    assert record_code(tmp_path) == Change("", NOW, STAGES)
    assert read(tmp_path) == locked_code()
    assert (tmp_path / FILE).read_text(encoding="utf-8").startswith("# The code of Graft")


def test_the_same_code_is_no_change(tmp_path: Path, locked: dict[str, Any]) -> None:
    before = (tmp_path / FILE).stat()

    assert record_code(tmp_path) is None
    assert (tmp_path / FILE).stat().st_mtime_ns == before.st_mtime_ns


def test_only_the_stages_whose_code_is_another_are_named(tmp_path: Path, locked: dict[str, Any]) -> None:
    locked["head"]["tasks/head"] = "0" * 32 + ".dir"
    write(tmp_path, locked)

    assert str(record_code(tmp_path)) == f"graft.lock: Graft {NOW}; other code in head"
    assert read(tmp_path) == locked_code()


def test_code_that_two_stages_share_changes_both(tmp_path: Path, locked: dict[str, Any]) -> None:
    for stage in ("head", "audit"):
        locked[stage]["tasks/common/solvers"] = "0" * 32 + ".dir"
    write(tmp_path, locked)

    change = record_code(tmp_path)

    assert change is not None
    assert change.stages == ("head", "audit"), "in the order in which they run"


def test_an_upgrade_names_both_versions(tmp_path: Path, locked: dict[str, Any]) -> None:
    write(tmp_path, {**locked, "graft": "0.0.9"})

    assert str(record_code(tmp_path)) == f"graft.lock: Graft 0.0.9 -> {NOW}"


@pytest.mark.parametrize("newer", ["99.0", "99.0.dev1", "1!0.1"])
def test_a_newer_graft_is_not_replaced(tmp_path: Path, locked: dict[str, Any], newer: str) -> None:
    write(tmp_path, {**locked, "graft": newer})
    before = (tmp_path / FILE).read_bytes()

    with pytest.raises(GraftError, match="newer Graft") as refused:
        record_code(tmp_path)

    assert (refused.value.got, refused.value.allowed) == (f"Graft {newer}", f"at most {NOW}")
    assert f"install Graft {newer}" in refused.value.todo
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"graft: [", b"- a list\n", b"<<<<<<< HEAD\ngraft: 1\n=======\n", b"graft: not a version\n"],
)
def test_a_damaged_file_is_rewritten_for_it_follows_from_the_code(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    change = record_code(tmp_path)

    assert change is not None
    assert change.stages == STAGES
    assert read(tmp_path) == locked_code()


def test_no_stage_depends_on_what_python_has_compiled() -> None:
    folder = Path(sys.modules["graft.tasks.code"].__file__ or "").parent / "head" / "__pycache__"
    before = code_of("head")
    folder.mkdir(exist_ok=True)
    stray = folder / "stray.pyc"
    stray.write_bytes(b"compiled")
    try:
        from graft.tasks.code import tree_hash

        assert tree_hash(folder.parent) == before["tasks/head"]
    finally:
        stray.unlink()


# In a project


def upgrade(project: Project) -> None:
    """Another version of the code that only the last stage runs."""
    file = project.own_code() / "tasks" / "register" / "stage.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# another version\n", encoding="utf-8")


def test_graft_repro_runs_what_an_upgrade_changed_and_nothing_else_and_says_so(project: Project) -> None:
    upgrade(project)

    done = project.graft("repro")

    assert f"graft.lock: Graft {NOW}; other code in register" in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'register':"
    ]
    assert project.git("status", "--porcelain", "--", FILE).split() == ["M", FILE]


def test_dvc_repro_records_an_upgrade_as_soon_as_a_stage_runs(project: Project) -> None:
    upgrade(project)
    project.set("register", smoke_images=3)
    before = project.json("runs/register.json")["inputs"]["tasks/register"]

    done = project.call(sys.executable, "-m", "dvc", "repro")

    assert f"graft.lock: Graft {NOW}; other code in register" in done.stderr + done.stdout
    now = read(project.root)["register"]["tasks/register"]
    assert now == project.json("runs/register.json")["inputs"]["tasks/register"] != before
    assert project.call(sys.executable, "-m", "dvc", "status", "register").stdout.strip() == (
        "Data and pipelines are up to date."
    )
