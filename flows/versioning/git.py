"""git: a project's commit, and the files of earlier commits."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graft.tasks.addresses import redacted, without_secrets
from graft.tasks.common.core.errors import GraftError, TransientError


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out; empty strings where there is no repository or no commit yet.

    `origin` is without the password that an address may carry, and over HTTP without the user.
    """

    commit: str
    branch: str
    dirty: bool
    origin: str

    def link(self, path: str) -> str:
        """A web address of `path` at this commit, for origins that have one; else empty."""
        match = re.match(
            r"^(?:https?://(?:[^/]*@)?|git@|ssh://git@)([^/:]+)(?::\d+)?[/:](.+?)(?:\.git)?/?$", self.origin
        )
        if not match or not self.commit:
            return ""
        host, project = match.groups()
        kind = "/-/blob/" if "gitlab" in host else "/src/" if "bitbucket" in host else "/blob/"
        return f"https://{host}/{project}{kind}{self.commit}/{path}"


MADE = ("dvc.lock", "graft.lock", "metrics", "data/pins.csv", "ledger.jsonl")
"""Tracked files that runs write; DVC removes metrics before it runs a stage."""


def git_state(root: Path) -> GitState:
    """The state of the repository at `root`; files that runs write do not make it dirty.

    Raises:
        GraftError: there is a repository that git refuses to open: lineage would lack the commit.
    """

    def ask(*words: str) -> str:
        done = try_git(root, *words)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = try_git(root, "rev-parse", "HEAD")
    check_opened(root, head)
    return GitState(
        commit=head.stdout.strip() if head.returncode == 0 else "",
        branch=ask("rev-parse", "--abbrev-ref", "HEAD"),
        dirty=bool(
            ask("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":(exclude){name}" for name in MADE))
        ),
        origin=without_secrets(ask("config", "--get", "remote.origin.url")),
    )


def check_opened(root: Path, done: subprocess.CompletedProcess[str]) -> None:
    """Raises git's own reason if a command failed although there is a repository, for example of another owner.

    Raises:
        GraftError: that is so.
    """
    if done.returncode == 0 or any(words in done.stderr for words in NOTHING_THERE):
        return
    advice = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("git ")]
    raise GraftError(
        f"git does not open the repository of {root}",
        got=redacted(_reason(done.stderr.strip() or "no message")),
        todo=f"run `{advice[0]}`, if you trust it" if advice else f"run `git status` in {root} to see more",
    )


NOTHING_THERE = ("not a git repository", "unknown revision")
"""Parts of git's messages where there is no repository, or no commit in it."""


def git(root: Path, *words: str, doing: str, say: str = "") -> str:
    """Runs git and returns its output; it never asks for a password.

    Args:
        doing: the purpose, for the error.
        say: its standard input.

    Raises:
        TransientError: the remote cannot be reached.
        GraftError: it failed; with the reason that it gave.
    """
    done = try_git(root, *words, say=say)
    if done.returncode:
        said = redacted(done.stderr.strip() or done.stdout.strip() or "no message")
        kind = TransientError if any(words in said.lower() for words in UNREACHED) else GraftError
        raise kind(
            f"git failed while {doing}",
            got=_reason(said),
            todo=redacted(f"run `git {' '.join(words)}` in {root} to see more"),
        )
    return done.stdout.strip()


def _reason(said: str) -> str:
    """The first line that git marks as an error, otherwise the last: it may end with advice in several lines."""
    lines = said.splitlines()
    return next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1])


UNREACHED = (
    "could not resolve host",
    "could not read from remote",
    "connection refused",
    "connection timed out",
    "unable to access",
    "does not appear to be a git repository",
    "the remote end hung up",
)
"""Parts of git's messages about a remote that does not answer."""


def try_git(root: Path, *words: str, say: str = "") -> subprocess.CompletedProcess[str]:
    """Runs git, whether it fails or not. No hooks run: DVC's would check out data, and hooks of the repository must not
    run unasked in Graft's own worktrees.

    Raises:
        GraftError: git is not installed.
    """
    _check_installed()
    who = f"graft@{socket.gethostname()}"
    asked = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    names = {f"GIT_{role}_{what}": value for role in ROLES for what, value in (("NAME", "Graft"), ("EMAIL", who))}
    known = {} if _has_identity(str(root)) else names
    command = ["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}", *words]
    return subprocess.run(command, input=say, env={**known, **os.environ, **asked}, capture_output=True, text=True)


def _check_installed() -> None:
    if shutil.which("git") is None:
        raise GraftError("git is not installed, or not in the PATH", todo="install git; lineage records its commits")


ROLES = ("AUTHOR", "COMMITTER")


@cache
def _has_identity(root: str) -> bool:
    done = subprocess.run(["git", "-C", root, "config", "user.email"], capture_output=True)
    return done.returncode == 0


def full_commit(root: Path, commit: str) -> str:
    """The full id of a commit from its first digits; empty if the repository has no such commit."""
    if commit.startswith("-"):
        return ""  # an option
    words = ["git", "-C", str(root), "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def versions_of(root: Path, path: str) -> Iterator[bytes]:
    """The contents of a file: now, then at all commits that changed it, the newest first."""
    if (root / path).is_file():
        yield (root / path).read_bytes()
    here = git(root, "rev-parse", "--show-prefix", doing="looking for the project in its repository")
    for commit in git(root, "log", "--all", "--format=%H", "--", path, doing=f"looking for {path}").split():
        done = subprocess.run(["git", "-C", str(root), "show", f"{commit}:{here}{path}"], capture_output=True)
        if done.returncode == 0:
            yield done.stdout
