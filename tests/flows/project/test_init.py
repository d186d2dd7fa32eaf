"""`graft init`: a project in an empty folder, in a folder with other things, and in one where a call was killed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from projects import ROOT, Project

from graft.flows.project import init as module
from graft.flows.project.init import Begun, init
from graft.flows.project.template import text_of
from graft.tasks.common.core.errors import GraftError

OWN = "[core]\n    autostage = false\n"


@pytest.fixture(autouse=True)
def no_configuration_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def files_of(root: Path) -> dict[str, bytes]:
    """Path -> content, without git's own files."""
    found = (file for file in root.rglob("*") if file.is_file() and ".git" not in file.relative_to(root).parts)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in found}


def test_a_folder_that_does_not_exist_becomes_a_project_with_git_and_dvc(tmp_path: Path) -> None:
    project = Project(tmp_path / "new" / "project")

    begun = init(project.root)

    assert {"git", "dvc.yaml", "params.yaml", "graft.lock", ".dvc/config", "data/pins.csv"} <= {*begun.created}
    assert git(project.root, "symbolic-ref", "--short", "HEAD") == "main\n"
    assert set(project.dvc("stage", "list", "--name-only").stdout.split()) >= {"preprocess", "register"}
    project.git("add", "--all")
    assert set(project.git("diff", "--cached", "--name-only").split()) == {*begun.created} - {"git"}


def test_no_remote_is_invented_and_both_are_said_to_be_missing(tmp_path: Path) -> None:
    project = Project(tmp_path)

    told = project.graft_here("init").stdout

    assert "DVC remote: none" in told
    assert "dvc remote add --default storage ADDRESS" in told
    assert "git remote: none" in told
    assert git(tmp_path, "remote") == ""


def test_a_second_call_changes_nothing_and_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    init(tmp_path)
    before = files_of(tmp_path)

    assert "Nothing was missing." in project.graft_here("init").stdout
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("left", range(0, 14, 3))
def test_a_call_completes_what_a_killed_one_began(tmp_path: Path, left: int) -> None:
    whole, half = init(tmp_path / "whole"), tmp_path / "half"
    shutil.copytree(whole.root, half)
    written = [name for name in whole.created if name != "git"]
    for name in written[left:]:
        (half / name).unlink()
    part = half / f".{written[left]}.99999999.part".replace("/", ".")
    part.write_text("cut off", encoding="utf-8")

    begun = init(half)

    assert begun.created == written[left:]
    assert {name: text for name, text in files_of(half).items() if name != part.name} == files_of(whole.root)


def test_a_repository_that_git_had_half_made_is_completed(tmp_path: Path) -> None:
    (tmp_path / ".git" / "objects").mkdir(parents=True)

    assert "git" in init(tmp_path).created
    assert git(tmp_path, "rev-parse", "--is-inside-work-tree") == "true\n"


def test_files_of_the_users_own_stay_as_they_are_and_are_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "trunk")
    (tmp_path / ".dvc").mkdir()
    for name in ("prefect.yaml", "requirements.txt", ".dvc/config"):
        (tmp_path / name).write_text(OWN, encoding="utf-8")
    (tmp_path / ".gitignore").write_text("/mine\n", encoding="utf-8")

    begun = init(tmp_path)

    assert {*begun.kept} == {"prefect.yaml", "requirements.txt", ".dvc/config"}
    assert {(tmp_path / name).read_text(encoding="utf-8") for name in begun.kept} == {OWN}
    assert begun.extended == [".gitignore"]
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "/mine\n" + text_of(".gitignore")
    assert git(tmp_path, "symbolic-ref", "--short", "HEAD") == "trunk\n"


def test_parameters_that_a_user_has_changed_are_kept(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("head: {l2_max: 7.0}\n", encoding="utf-8")

    assert "params.yaml" in init(tmp_path).kept


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("dvc.yaml", "a DVC pipeline of your own"),
        ("params.yaml", "unknown section `mine`"),
        ("report/thesis.tex", "where a stage would write"),
    ],
)
def test_what_graft_would_replace_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, name: str, got: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine: {}\n", encoding="utf-8")

    with pytest.raises(GraftError, match=name.split("/")[0]) as refused:
        init(tmp_path)

    assert got in str(refused.value.got)
    assert files_of(tmp_path) == {name: b"mine: {}\n"}
    assert not (tmp_path / ".git").exists()


def test_a_folder_inside_a_project_is_refused(tmp_path: Path) -> None:
    init(tmp_path)

    with pytest.raises(GraftError, match="lies in another Graft project"):
        init(tmp_path / "below" / "it")
    assert not (tmp_path / "below").exists()


def test_grafts_own_repository_stays_as_it_is() -> None:
    with pytest.raises(GraftError, match="is Graft's own repository"):
        init(ROOT)
    assert not (ROOT / "requirements.txt").exists()


def test_a_folder_of_another_repository_becomes_a_project_within_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    project = Project(tmp_path / "vision")

    begun = init(project.root)

    assert "git" not in begun.created
    assert not (project.root / ".git").exists()
    assert list(begun.left_out) == [".github/workflows/graft.yml"]
    assert not (tmp_path / ".github").exists()
    assert project.dvc("root").stdout.strip() == "."


def test_a_rule_by_which_git_ignores_a_file_of_the_project_is_named(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\ndata/\n", encoding="utf-8")

    with pytest.raises(GraftError, match="git ignores files") as refused:
        init(tmp_path)

    assert refused.value.got == "data/raw.dvc, by .gitignore:2:data/"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(OWN, encoding="utf-8")

    with pytest.raises(GraftError, match="cannot become a project"):
        init(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == OWN


def test_a_folder_without_permission_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = Project(tmp_path).graft_here("init", "/proc/graft", check=False)

    assert done.returncode == 2
    assert "/proc/graft cannot become a project" in done.stderr


def test_without_git_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(GraftError, match="git is not installed"):
        init(tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_remote_is_relative_to_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert init(Path("a/project"), "store").dvc_remote == str(tmp_path / "store")
    assert "../../../store" in (tmp_path / "a" / "project" / ".dvc" / "config").read_text(encoding="utf-8")
    assert init(Path("a/project"), "store").dvc_remote == str(tmp_path / "store"), "the same once more"


def test_another_remote_than_that_of_the_project_is_refused(tmp_path: Path) -> None:
    init(tmp_path, "s3://bucket/project")

    with pytest.raises(GraftError, match="has a DVC remote already") as refused:
        init(tmp_path, "s3://other/project")
    assert refused.value.allowed == "storage, s3://bucket/project"


def test_a_password_in_the_address_of_a_remote_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="has a password") as refused:
        init(tmp_path / "project", "https://me:secret@host/store")

    assert "secret" not in str(refused.value)
    assert not (tmp_path / "project").exists()


def test_the_code_of_a_newer_graft_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "graft.lock").write_text("graft: 99.0\n", encoding="utf-8")

    with pytest.raises(GraftError, match="newer Graft"):
        init(tmp_path)
    assert not (tmp_path / "dvc.yaml").exists(), "it is no project yet"


def test_as_json_it_gives_what_it_did(tmp_path: Path) -> None:
    import json

    told = json.loads(Project(tmp_path).graft_here("init", "p", "--json").stdout)

    assert told["root"] == str(tmp_path / "p")
    assert told.keys() == Begun(tmp_path).__dict__.keys()
    assert module.REMOTE == "storage"
