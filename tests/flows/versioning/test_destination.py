"""Where unattended runs push: never to Graft's own repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from projects import ROOT

from graft.flows.versioning.destination import OWN_FILES, destination


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path, "dvc.yaml")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


def commit(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", names[0])


def test_results_go_to_the_remote_that_the_parameters_name(repo: Path) -> None:
    git(repo, "remote", "add", "origin", "git@git.example.org:team/project.git")

    assert destination(repo, "origin", "main").remote == "origin"


def test_without_the_remote_they_stay_here_and_it_says_how_to_add_it(repo: Path) -> None:
    goes = destination(repo, "origin", "main")

    assert str(goes) == "results stay on the local branch graft/retrain: there is no git remote `origin`"
    assert goes.todo == "git remote add origin ADDRESS, of your own"


def test_from_a_clone_of_graft_nothing_goes_to_origin(repo: Path) -> None:
    commit(repo, *OWN_FILES)
    git(repo, "remote", "add", "origin", "git@git.example.org:graft/graft.git")

    goes = destination(repo, "origin", "main")

    assert goes.remote == ""
    assert goes.why == "the git remote `origin` is Graft's own repository"
    assert "graft init" in goes.todo


def test_from_a_clone_of_graft_results_go_to_a_remote_that_the_user_has_named(repo: Path) -> None:
    commit(repo, *OWN_FILES)
    git(repo, "remote", "add", "mine", "git@git.example.org:me/project.git")

    assert destination(repo, "mine", "main").remote == "mine"


def test_a_remote_with_grafts_files_is_grafts_own(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    graft = tmp_path_factory.mktemp("graft")
    git(graft, "init", "--quiet", "--initial-branch", "main")
    commit(graft, *OWN_FILES)
    git(repo, "remote", "add", "origin", str(graft))
    git(repo, "fetch", "--quiet", "origin")

    assert destination(repo, "origin", "main").remote == ""
    assert destination(repo, "origin", "another").remote == "origin"


def test_this_repository_has_the_files_by_which_it_is_known() -> None:
    assert [name for name in OWN_FILES if not (ROOT / name).is_file()] == []
