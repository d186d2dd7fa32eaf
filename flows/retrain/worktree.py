"""The git worktree in which unattended runs work: the user's checkout is never touched, even if it is dirty.

It shares the repository's objects, DVC's cache and the feature cache, and keeps its own outputs from run to run.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths

from ..runtime.params import RetrainParams, load_params
from ..versioning.destination import OWN_BRANCH, Destination, destination, is_grafts
from ..versioning.dvc_config import share_cache
from ..versioning.git import check_opened, git, try_git


@dataclass(frozen=True)
class Workspace:
    """The worktree, and where its results go.

    Attributes:
        project: the user's checkout, which is only read.
        root: the same project in the worktree.
        tree: the worktree.
        remote: the name of the git remote that results are pushed to; empty without one.
        branch: the branch that is retrained.
        commit: the commit at which the run began.
    """

    project: Path
    root: Path
    tree: Path
    remote: str
    branch: str
    commit: str


def repository(project: Path) -> Path:
    """The top folder of the project's git repository.

    Raises:
        GraftError: the project is in no repository, git refuses to open it, or nothing has been committed.
    """
    done = try_git(project, "rev-parse", "--show-toplevel")
    check_opened(project, done)
    if done.returncode or try_git(project, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        raise GraftError(
            f"{project} cannot be retrained unattended",
            got="no git repository" if done.returncode else "a git repository without a commit",
            allowed="a project whose code, dvc.yaml and data/raw.dvc are committed",
            todo="git init, git add, git commit; or `graft run` to run the checkout as it is",
        )
    return Path(done.stdout.strip())


def committed_params(project: Path) -> RetrainParams:
    """The section `retrain` as it is committed: uncommitted changes belong to the user.

    Raises:
        ParamsError: the committed params.yaml is wrong.
    """
    text = git(project, "show", "HEAD:./params.yaml", doing="reading the committed params.yaml")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_text(text, encoding="utf-8")
        return load_params(file).retrain


def destination_of(project: Path, params: RetrainParams) -> Destination:
    """Where the results go: to `retrain.remote` if that is a remote of the user's."""
    return destination(project, params.remote, params.branch)


def prepare(project: Path, params: RetrainParams) -> Workspace:
    """Brings the worktree to the newest commit of the branch, whatever state an earlier run left it in. The caller must
    hold the lock.

    Raises:
        TransientError: the remote does not answer.
        GraftError: the branch does not exist, or cannot be merged where there is no remote.
    """
    repo, remote = repository(project), destination_of(project, params).remote
    tree = Paths(project).state / "worktrees" / "retrain"
    root = tree / project.resolve().relative_to(repo.resolve())
    _clear_locks(tree, root)
    target = _newest(repo, remote, params.branch)
    if not (tree / ".git").is_file():
        shutil.rmtree(tree, ignore_errors=True)
        git(repo, "worktree", "prune", doing="creating the worktree")
        git(repo, "worktree", "add", "--quiet", "--force", "--detach", str(tree), target, doing="creating the worktree")
    _check_out(tree, remote, target)
    _share(project, root)
    commit = git(tree, "rev-parse", "HEAD", doing="reading the commit")
    return Workspace(project, root, tree, remote, params.branch, commit)


def _newest(repo: Path, remote: str, branch: str) -> str:
    if remote:
        spec = f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"
        git(repo, "fetch", "--quiet", "--no-tags", remote, spec, doing=f"fetching {branch} from {remote}")
        _refuse_grafts(repo, remote, branch)
        return f"refs/remotes/{remote}/{branch}"
    if try_git(repo, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").returncode:
        heads = git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads", doing="listing branches")
        raise GraftError(
            "params.yaml: retrain.branch is not a branch of this repository",
            got=branch,
            allowed=", ".join(heads.split()),
            todo="set it to the branch that should be retrained",
        )
    return f"refs/heads/{branch}"


def _refuse_grafts(repo: Path, remote: str, branch: str) -> None:
    """Only what has been fetched shows what a remote is."""
    if is_grafts(repo, f"refs/remotes/{remote}/{branch}") and not is_grafts(repo, "HEAD"):
        raise GraftError(
            "params.yaml: retrain.remote is Graft's own repository",
            got=remote,
            allowed="a git remote of your own",
            todo=f"git remote set-url {remote} ADDRESS",
        )


def _check_out(tree: Path, remote: str, target: str) -> None:
    """Checks out the target; without a remote the branch of results, with the target merged into it."""
    try_git(tree, "rebase", "--abort")  # if an earlier run was killed in one
    try_git(tree, "merge", "--abort")
    known = not remote and not try_git(tree, "rev-parse", "--verify", "--quiet", f"refs/heads/{OWN_BRANCH}").returncode
    start = f"refs/heads/{OWN_BRANCH}" if known else target
    git(tree, "checkout", "--quiet", "--force", "--detach", start, doing="checking out the branch")
    git(tree, "clean", "--quiet", "-d", "--force", doing="cleaning the worktree")
    if known:
        doing = f"merging {target} into {OWN_BRANCH}, which holds earlier results"
        git(tree, "merge", "--quiet", "--no-edit", "-X", "theirs", target, doing=doing)


def _clear_locks(tree: Path, root: Path) -> None:
    """Removes the locks of git and DVC that a killed run has left: the caller holds the lock of the repository."""
    done = try_git(tree, "rev-parse", "--git-dir") if (tree / ".git").is_file() else None
    if done is not None and done.returncode == 0:
        for lock in Path(done.stdout.strip()).glob("*.lock"):
            lock.unlink(missing_ok=True)
    for name in ("rwlock", "rwlock.lock"):
        (root / ".dvc" / "tmp" / name).unlink(missing_ok=True)


def _share(project: Path, root: Path) -> None:
    """Shares DVC's cache and local settings, and the caches of features and graphs."""
    own, local = (place / ".dvc" / "config.local" for place in (project, root))
    local.unlink(missing_ok=True)
    if own.is_file():
        local.touch(mode=0o600)  # it may hold passwords
        local.write_bytes(own.read_bytes())
    share_cache(project, root)
    ours, theirs = Paths(root).cache, Paths(project).cache
    theirs.mkdir(parents=True, exist_ok=True)
    if not ours.is_symlink():
        shutil.rmtree(ours, ignore_errors=True)
        ours.parent.mkdir(parents=True, exist_ok=True)
        ours.symlink_to(theirs.resolve(), target_is_directory=True)
