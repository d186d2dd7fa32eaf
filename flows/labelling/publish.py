"""Answers go to the branch that unattended runs follow: data/labels.csv is committed alone, and pushed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.core.words import listed

from ..runtime.params import load_params
from ..versioning.destination import destination
from ..versioning.dvc import dvc
from ..versioning.dvc_config import dvc_remote
from ..versioning.git import git, try_git

FILE = "data/labels.csv"

TRIES = 3
"""Pushes, if others push at the same time."""

PULL = "`git pull --rebase`, then `git push`"


@dataclass(frozen=True)
class Published:
    """What became of the answers.

    Attributes:
        answers: how many were committed.
        branch: the branch that they are on.
        pushed: whether they are in the remote.
        why: why not, and what to do; empty if they are.
    """

    answers: int
    branch: str
    pushed: bool
    why: str = ""

    def sentence(self) -> str:
        committed = f"{_count(self.answers)} committed on {self.branch}" if self.answers else "no new answers"
        if self.pushed:
            return f"{committed}, pushed"
        return f"{committed}; not pushed: {self.why}"


def _count(answers: int) -> str:
    return f"{answers:,} answer{'' if answers == 1 else 's'}"


def publish_labels(root: Path) -> Published:
    """Commits data/labels.csv alone, and pushes it if `retrain.remote` and `retrain.branch` are this branch's.

    Nothing else is committed, staged, pushed or overwritten. Where a push would need that, the answers stay committed
    here, and the result says what to do.

    Raises:
        GraftError: they cannot be committed; they are in data/labels.csv.
    """
    branch = _branch(root)
    answers = _commit(root)
    params = load_params(Paths(root).params).retrain
    goes = destination(root, params.remote, params.branch)
    if not goes.remote:
        return Published(answers, branch, False, goes.why)
    if branch != params.branch:
        return Published(answers, branch, False, f"unattended runs follow {params.branch}; merge {branch} into it")
    why = _push(root, goes.remote, branch)
    return Published(answers, branch, not why, why)


def _branch(root: Path) -> str:
    done = try_git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    if done.returncode:
        known = try_git(root, "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0
        raise GraftError(
            "the answers cannot be committed; they are in data/labels.csv",
            got="no branch is checked out" if known else "no git repository with a commit",
            todo="check out a branch, then `git commit data/labels.csv`",
        )
    return done.stdout.strip()


def _commit(root: Path) -> int:
    """The number of answers that were not committed before."""
    before = try_git(root, "show", f"HEAD:./{FILE}").stdout.splitlines()
    if not (root / FILE).is_file() or not git(root, "status", "--porcelain", "--", FILE, doing="looking for answers"):
        return 0
    answers = len((root / FILE).read_text(encoding="utf-8").splitlines()) - max(len(before), 1)
    doing = "committing data/labels.csv, which has the answers"
    git(root, "add", "--", FILE, doing=doing)
    message = f"Label images: {_count(answers)}"
    git(root, "commit", "--quiet", "--no-verify", "--only", "--message", message, "--", FILE, doing=doing)
    return answers


def _push(root: Path, remote: str, branch: str) -> str:
    """Why the answers are not in the remote; empty if they are."""
    theirs, said = f"refs/remotes/{remote}/{branch}", ""
    for _ in range(TRIES):
        fetched = try_git(root, "fetch", "--quiet", "--no-tags", remote, f"+refs/heads/{branch}:{theirs}")
        if fetched.returncode:
            return f"{_last(fetched.stderr)}; `git push` when {remote} answers"
        others = _other_commits(root, theirs)
        if others:
            return f"{others:,} other commits of yours would go with them; `git push` when they are ready"
        if try_git(root, "merge-base", "--is-ancestor", theirs, "HEAD").returncode:
            why = _rebase(root, theirs)
            if why:
                return why
        done = try_git(root, "push", "--quiet", "--no-verify", remote, f"HEAD:refs/heads/{branch}")
        if done.returncode == 0:
            return ""
        said = _last(done.stderr)
    return f"{said}; {PULL}"


def _other_commits(root: Path, theirs: str) -> int:
    """How many commits that are not pushed change more than the answers."""
    words = ("rev-list", "--count", f"{theirs}..HEAD", "--", ":/", f":(exclude){FILE}")
    return int(git(root, *words, doing="looking for commits that are not pushed"))


def _rebase(root: Path, theirs: str) -> str:
    """Puts the answers on top of what others have pushed; why that cannot be done."""
    staged = _names(root, "--cached")
    if staged:
        return f"others have pushed, and {listed(staged)} is staged here; commit or unstage it, then {PULL}"
    both = sorted({*_names(root, "HEAD")} & {*_names(root, f"HEAD...{theirs}")})
    if both:
        return f"others have changed {listed(both)}, which has uncommitted changes here; commit these, then {PULL}"
    before = git(root, "rev-parse", "HEAD", doing="reading the commit")
    union = ("-c", "merge.default=union")  # as .gitattributes has it, which a project may lack
    done = try_git(root, *union, "rebase", "--quiet", "--autostash", theirs)
    if done.returncode:
        try_git(root, "rebase", "--abort")
        return f"others have pushed what does not go together with this checkout: {_last(done.stderr)}; {PULL}"
    _bring_data(root, before)
    return ""


def _bring_data(root: Path, before: str) -> None:
    """Checks out the images and results that came with the commits of others."""
    if not any(name.endswith((".dvc", "dvc.lock")) for name in _names(root, before, "HEAD")):
        return
    verb = "pull" if dvc_remote(root) else "checkout"
    try:
        dvc(root, [verb, "--quiet"], "checking out what others have pushed")
    except GraftError as error:
        say(f"label: the checkout has others' commits now, but not their images: {error}")


def _names(root: Path, *words: str) -> list[str]:
    return git(root, "diff", "--name-only", *words, doing="comparing with what others have pushed").splitlines()


def _last(said: str) -> str:
    """The line of git's that says what was wrong."""
    lines = [line for line in said.strip().splitlines() if not line.startswith("hint:")] or ["git gave no reason"]
    return redacted(next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1]))
