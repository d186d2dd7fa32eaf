"""git: a project's commit, its origin, and errors without secrets."""

from __future__ import annotations

import pytest
from projects import Project

from graft.flows.versioning.git import GitState, git, git_state
from graft.tasks.common.core.errors import GraftError


def test_git_is_asked_for_commit_and_changes(project: Project) -> None:
    assert git_state(project.root).commit == project.git("rev-parse", "HEAD")
    assert not git_state(project.root).dirty

    project.set("head", strengths=3)

    assert git_state(project.root).dirty


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
