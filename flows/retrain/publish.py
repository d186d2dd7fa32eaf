"""Publishes the result of a run: the data to the DVC remote, then the commit to the git remote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from graft.tasks.addresses import redacted
from graft.tasks.code import FILE as CODE
from graft.tasks.common.core.errors import GraftError

from ..registry.ledger import FILE
from ..versioning.destination import OWN_BRANCH
from ..versioning.dvc import dvc
from ..versioning.dvc_config import dvc_remote
from ..versioning.git import git, try_git
from .worktree import Workspace

SKIP_CI = "[skip ci]"

RESULTS = (FILE, CODE, "dvc.lock", "data/raw.dvc", "data/pool.dvc", "data/.gitignore", "metrics")
"""What a run may create; what is committed already is known to git."""


def publish(workspace: Workspace, message: str, still_ours: Callable[[], None]) -> str:
    """Pushes the data, then commits and pushes what git tracks; returns the commit. In this order a published commit
    never names data that others cannot get.

    Args:
        still_ours: raises an error if another run has taken over the repository.

    Raises:
        TransientError: a remote does not answer.
        GraftError: somebody has pushed a conflicting change.
    """
    still_ours()
    if dvc_remote(workspace.root):
        dvc(workspace.root, ["push", "--quiet"], "pushing data to DVC's remote")
    commit = _commit(workspace.tree, workspace.root, message)
    still_ours()  # the data may have taken hours
    _push(workspace)
    return commit if not workspace.remote else git(workspace.tree, "rev-parse", "HEAD", doing="reading the commit")


def _commit(tree: Path, root: Path, message: str) -> str:
    git(tree, "add", "--update", doing="committing")
    names = [name for name in RESULTS if (root / name).exists()]
    git(root, "add", "--", *names, doing="committing")
    if try_git(tree, "diff", "--cached", "--quiet").returncode:
        git(
            tree, "commit", "--quiet", "--no-verify", "--file", "-", doing="committing", say=f"{message}\n\n{SKIP_CI}\n"
        )
    return git(tree, "rev-parse", "HEAD", doing="reading the commit")


def _push(workspace: Workspace) -> None:
    if not workspace.remote:
        git(workspace.tree, "update-ref", f"refs/heads/{OWN_BRANCH}", "HEAD", doing=f"keeping {OWN_BRANCH}")
        return
    for _ in range(3):
        head = git(workspace.tree, "rev-parse", "HEAD", doing="reading the commit")
        done = try_git(
            workspace.project,
            "push",
            "--quiet",
            "--no-verify",
            workspace.remote,
            f"{head}:refs/heads/{workspace.branch}",
        )
        if done.returncode == 0:
            return
        if "rejected" not in done.stderr and "fetch first" not in done.stderr:
            break
        _rebase(workspace)
    refs = f"{head}:refs/heads/{workspace.branch}"  # again, for its error message
    git(workspace.project, "push", "--no-verify", workspace.remote, refs, doing="pushing the result")


def _rebase(workspace: Workspace) -> None:
    """Rebases onto what others have pushed in the meantime."""
    branch = f"refs/remotes/{workspace.remote}/{workspace.branch}"
    spec = f"+refs/heads/{workspace.branch}:{branch}"
    git(workspace.project, "fetch", "--quiet", "--no-tags", workspace.remote, spec, doing="fetching what was pushed")
    done = try_git(workspace.tree, "rebase", "--quiet", branch)
    if done.returncode:
        where = try_git(workspace.tree, "diff", "--name-only", "--diff-filter=U").stdout.split()
        try_git(workspace.tree, "rebase", "--abort")
        raise GraftError(
            f"{workspace.branch} has changed during the run, in the same files",
            got=", ".join(where) or redacted((done.stderr.strip().splitlines() or ["a conflict"])[-1]),
            todo="nothing: the next run starts from the new commit, and finds the computed results in DVC's cache",
        )
