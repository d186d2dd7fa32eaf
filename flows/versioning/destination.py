"""Where the results of unattended runs go: to a git remote of the user's, or to a local branch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .git import git, try_git

OWN_BRANCH = "graft/retrain"
"""The branch for results that are not pushed."""

OWN_FILES = ("src/graft/__init__.py", "flows/retrain/flow.py", "tasks/code.py")
"""Files that Graft's own repository has, and no project."""


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Attributes:
        remote: the name of the git remote; empty if they stay on `OWN_BRANCH`.
        why: why they stay.
        todo: what to do about it.
    """

    remote: str
    why: str = ""
    todo: str = ""

    def __str__(self) -> str:
        if self.remote:
            return f"results are pushed to the git remote {self.remote}"
        return f"results stay on the local branch {OWN_BRANCH}: {self.why}"


def destination(project: Path, remote: str, branch: str) -> Destination:
    """Where results go if `remote` and `branch` are those that params.yaml names.

    A clone of Graft has Graft's own repository as `origin`; a user pushes from it to nothing but a remote added and
    named for that.
    """
    if remote not in git(project, "remote", doing="looking for a remote").splitlines():
        return Destination("", f"there is no git remote `{remote}`", f"git remote add {remote} ADDRESS, of your own")
    clone = is_grafts(project, "HEAD")
    if (clone and remote == "origin") or (not clone and is_grafts(project, f"refs/remotes/{remote}/{branch}")):
        return Destination(
            "",
            f"the git remote `{remote}` is Graft's own repository",
            "make a project of your own with `graft init FOLDER`, or name another remote in `retrain.remote`",
        )
    return Destination(remote)


def is_grafts(repo: Path, commit: str) -> bool:
    """Whether a commit is one of Graft's own repository, or of a fork; not if there is no such commit."""
    return all(try_git(repo, "cat-file", "-e", f"{commit}:{file}").returncode == 0 for file in OWN_FILES)
