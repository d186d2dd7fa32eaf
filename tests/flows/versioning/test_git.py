"""git: a project's commit, its origin, and errors without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from projects import Project

from graft.flows.retrain.worktree import repository
from graft.flows.versioning.git import GitState, git, git_state
from graft.tasks.common.core.errors import GraftError


def test_git_is_asked_for_commit_and_changes(project: Project) -> None:
    assert git_state(project.root).commit == project.git("rev-parse", "HEAD")
    assert not git_state(project.root).dirty

    project.set("head", strengths=3)

    assert git_state(project.root).dirty


def test_a_repository_of_another_owner_is_an_error_with_gits_own_reason_and_remedy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for ask in (git_state, repository):
        with pytest.raises(GraftError, match="git does not open the repository") as caught:
            ask(project.root)
        assert "dubious ownership" in str(caught.value.got)
        assert f"git config --global --add safe.directory {project.root}" in caught.value.todo
    found = project.graft_here("doctor", check=False, GIT_TEST_ASSUME_DIFFERENT_OWNER="1").stdout
    assert "dubious ownership" in found
    assert "safe.directory" in found


def test_nothing_is_recorded_without_its_commit_because_git_refused(project: Project) -> None:
    project.set("head", strengths=5)
    before = project.lock(), len(project.runs())
    words = [sys.executable, "-m", "graft.flows.stage", "head"]
    done = project.call(*words, check=False, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode == 2
    assert "dubious ownership" in done.stderr
    assert (project.lock(), len(project.runs())) == before


def test_without_a_repository_or_a_commit_the_state_is_empty(tmp_path: Path) -> None:
    empty = GitState(commit="", branch="", dirty=False, origin="")
    assert git_state(tmp_path) == empty
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert git_state(tmp_path) == empty


def test_without_git_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraftError, match="git is not installed"):
        git_state(tmp_path)


def test_what_a_run_writes_after_an_upgrade_is_no_change_of_the_users(empty_project: Project) -> None:
    (empty_project.root / "graft.lock").write_text("graft: 0.2.0\n", encoding="utf-8")

    assert not git_state(empty_project.root).dirty


def test_a_password_in_the_origin_is_not_kept(project: Project) -> None:
    project.git("remote", "add", "origin", "https://user:p@ss@example.org/team/shop.git")
    assert git_state(project.root).origin == "https://example.org/team/shop.git"
    project.git("remote", "set-url", "origin", "ssh://git:secret@example.org/team/shop.git")
    assert git_state(project.root).origin == "ssh://git@example.org/team/shop.git"


def test_an_error_of_gits_tells_no_password(project: Project) -> None:
    with pytest.raises(GraftError) as caught:
        git(project.root, "clone", "https://user:p@ss@127.0.0.1:1/x.git", doing="a test")
    assert "p@ss" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value.got)


def test_origins_become_links_to_a_file_at_the_commit() -> None:
    def link(origin: str) -> str:
        return GitState("abc", "main", False, origin).link("data/raw.dvc")

    assert link("git@github.com:team/shop.git") == "https://github.com/team/shop/blob/abc/data/raw.dvc"
    assert link("https://user:secret@github.com/team/shop") == "https://github.com/team/shop/blob/abc/data/raw.dvc"
    assert link("ssh://git@gitlab.com:22/a/b/c.git") == "https://gitlab.com/a/b/c/-/blob/abc/data/raw.dvc"
    assert link("/srv/git/shop.git") == ""
