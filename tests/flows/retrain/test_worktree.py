"""The worktree of unattended runs: the newest commit, the shared caches, and a checkout that nobody touches."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import Project, made_repository, make_project

from graft.flows.retrain.lock import REF, Lost, alone
from graft.flows.retrain.publish import publish
from graft.flows.retrain.worktree import committed_params, prepare, repository
from graft.flows.runtime.params import RetrainParams
from graft.flows.versioning.destination import OWN_BRANCH, OWN_FILES
from graft.flows.versioning.dvc_config import cache_folder, dvc_remote_addresses
from graft.flows.versioning.git import git, git_state
from graft.tasks.common.core.errors import GraftError, TransientError

PARAMS = RetrainParams()


def snapshot(root: Path) -> dict[str, bytes]:
    """The content of the checkout without the folders of git and Graft."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and not {".git", ".graft", "__pycache__"} & set(file.relative_to(root).parts)
    }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without images, with a remote of git's and of DVC's."""
    return made_repository(make_project(tmp_path / "project"), tmp_path)


def test_the_worktree_is_at_the_newest_commit_of_the_remote(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    git(tmp_path, "clone", "--quiet", str(tmp_path / "remote.git"), "other", doing="a test")
    (other.root / "note.txt").write_text("new", encoding="utf-8")
    other.git("add", "note.txt")
    other.git("commit", "--quiet", "--message", "news")
    other.git("push", "--quiet", "origin", "main")

    workspace = prepare(project.root, PARAMS)

    assert (workspace.root / "note.txt").read_text(encoding="utf-8") == "new"
    assert workspace.commit == git_state(other.root).commit
    assert not (project.root / "note.txt").exists()


def test_a_dirty_checkout_stays_as_it_is(project: Project) -> None:
    (project.root / "params.yaml").write_text("this: [is not, finished", encoding="utf-8")
    (project.root / "scribble.txt").write_text("mine", encoding="utf-8")
    (project.root / "dvc.yaml").unlink()
    before, status = snapshot(project.root), project.git("status", "--porcelain")

    workspace = prepare(project.root, committed_params(project.root))

    assert (snapshot(project.root), project.git("status", "--porcelain")) == (before, status)
    assert (workspace.root / "dvc.yaml").is_file()
    assert not (workspace.root / "scribble.txt").exists()


def test_what_an_earlier_run_left_behind_is_gone(project: Project) -> None:
    first = prepare(project.root, PARAMS)
    (first.root / "params.yaml").write_text("half", encoding="utf-8")
    (first.root / "left.txt").write_text("over", encoding="utf-8")
    (first.root / "models").mkdir()
    folder = Path(git(first.tree, "rev-parse", "--git-dir", doing="a test"))
    (folder / "index.lock").touch()

    again = prepare(project.root, PARAMS)

    assert again.root == first.root
    assert (again.root / "params.yaml").read_text(encoding="utf-8") != "half"
    assert not (again.root / "left.txt").exists()
    assert (again.root / "models").is_dir(), "what git ignores is kept: DVC need not bring it back"


def test_a_broken_worktree_is_recreated(project: Project) -> None:
    first = prepare(project.root, PARAMS)
    (first.tree / ".git").unlink()
    assert (prepare(project.root, PARAMS).tree / ".git").is_file()


def test_caches_and_remotes_are_the_projects(project: Project) -> None:
    workspace = prepare(project.root, PARAMS)
    assert cache_folder(workspace.root) == (project.root / ".dvc" / "cache").resolve()
    assert dvc_remote_addresses(workspace.root) == dvc_remote_addresses(project.root)
    assert (workspace.root / ".graft" / "cache").resolve() == (project.root / ".graft" / "cache").resolve()
    assert git_state(workspace.root).dirty is False


def test_a_relative_remote_of_dvcs_is_the_same_folder(project: Project, tmp_path: Path) -> None:
    project.dvc("remote", "modify", "--local", "store", "url", "../store")
    assert dvc_remote_addresses(prepare(project.root, PARAMS).root) == {"store": str(tmp_path / "store")}


def test_a_project_below_the_repository_is_found_in_the_worktree(tmp_path: Path) -> None:
    whole = tmp_path / "mono"
    inner = make_project(whole / "vision")
    (inner.root / ".git").rename(tmp_path / "away")
    git(whole, "init", "--quiet", "--initial-branch", "main", doing="a test")
    git(whole, "add", "--all", doing="a test")
    git(whole, "commit", "--quiet", "--message", "all", doing="a test")
    workspace = prepare(inner.root, PARAMS)
    assert workspace.root == workspace.tree / "vision"
    assert (workspace.root / "dvc.yaml").is_file()

    stale = workspace.root / ".dvc" / "tmp" / "rwlock"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.touch()
    prepare(inner.root, PARAMS)
    assert not stale.exists(), "a killed run's lock of DVC is in the project's folder, not at the top"


def test_no_hook_runs_when_the_worktree_is_made_or_its_result_published(project: Project, tmp_path: Path) -> None:
    hooks = project.root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    proof = tmp_path / "ran"
    for name in ("post-checkout", "pre-commit", "post-commit", "post-merge", "pre-push", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {proof}\nexit 1\n", encoding="utf-8")
        (hooks / name).chmod(0o755)

    with alone(project.root, "origin") as still_ours:
        workspace = prepare(project.root, PARAMS)
        (workspace.root / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
        commit = publish(workspace, "result", still_ours)

    assert not proof.exists()
    assert commit != workspace.commit
    assert git(project.root, "ls-remote", "origin", "refs/heads/main", doing="a test").split()[0] == commit


def test_a_run_that_has_lost_the_lock_pushes_nothing(project: Project) -> None:
    before = git(project.root, "ls-remote", "origin", "refs/heads/main", doing="a test")
    with alone(project.root, "origin") as still_ours, pytest.raises(Lost, match="lost the lock"):
        workspace = prepare(project.root, PARAMS)
        (workspace.root / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
        git(project.root, "push", "--quiet", "origin", f":{REF}", doing="a test")
        publish(workspace, "result", still_ours)
    assert git(project.root, "ls-remote", "origin", "refs/heads/main", doing="a test") == before


def test_without_a_remote_earlier_results_are_kept_and_joined_with_what_is_new(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    first = prepare(project.root, PARAMS)
    (first.root / "result.txt").write_text("1", encoding="utf-8")
    git(first.tree, "add", "result.txt", doing="a test")
    git(first.tree, "commit", "--quiet", "--message", "result", doing="a test")
    git(first.tree, "update-ref", f"refs/heads/{OWN_BRANCH}", "HEAD", doing="a test")
    (project.root / "news.txt").write_text("2", encoding="utf-8")
    project.git("add", "news.txt")
    project.git("commit", "--quiet", "--message", "news")

    again = prepare(project.root, PARAMS)

    assert (again.root / "result.txt").is_file()
    assert (again.root / "news.txt").is_file()
    assert project.git("log", "--format=%s", "main").splitlines() == ["news", "project"]


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(GraftError, match="cannot be retrained unattended"):
        repository(tmp_path / "plain")
    git(tmp_path / "plain", "init", "--quiet", doing="a test")
    with pytest.raises(GraftError, match="without a commit"):
        repository(tmp_path / "plain")


def test_a_branch_that_is_not_there_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    with pytest.raises(GraftError, match=r"retrain\.branch") as wrong:
        prepare(project.root, RetrainParams(branch="trunk"))
    assert wrong.value.allowed == "main"


def test_a_remote_that_does_not_answer_may_do_so_later(project: Project, tmp_path: Path) -> None:
    (tmp_path / "remote.git").rename(tmp_path / "away.git")
    with pytest.raises(TransientError, match="fetching main"):
        prepare(project.root, PARAMS)


def pretend_to_be_graft(folder: Path) -> None:
    """Commits what only Graft's own repository has."""
    for name in OWN_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    git(folder, "add", "--all", doing="a test")
    git(folder, "commit", "--quiet", "--message", "Graft", doing="a test")


def test_a_clone_of_graft_keeps_its_results_and_pushes_nothing_to_origin(project: Project) -> None:
    pretend_to_be_graft(project.root)
    before = git(project.root, "ls-remote", "origin", doing="a test")

    workspace = prepare(project.root, PARAMS)
    with alone(project.root, workspace.remote) as still_ours:
        (workspace.root / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
        commit = publish(workspace, "result", still_ours)

    assert git(project.root, "ls-remote", "origin", doing="a test") == before
    assert git(project.root, "rev-parse", OWN_BRANCH, doing="a test") == commit


def test_a_remote_that_turns_out_to_be_grafts_own_is_refused(project: Project, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(tmp_path / "remote.git"), "other", doing="a test")
    pretend_to_be_graft(tmp_path / "other")
    git(tmp_path / "other", "push", "--quiet", "origin", "main", doing="a test")

    with pytest.raises(GraftError, match=r"retrain\.remote is Graft's own repository"):
        prepare(project.root, PARAMS)
    assert prepare(project.root, PARAMS).remote == "", "known now, and left alone"
