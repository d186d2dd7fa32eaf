"""`graft init`: makes a folder a project. Every file is written whole, so that a next call completes what a killed one
began; nothing that exists is replaced."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from graft.tasks.addresses import redacted
from graft.tasks.code import FILE as CODE
from graft.tasks.code import record_code
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import whole_file

from ..versioning import dvc, dvc_config
from ..versioning.git import git, try_git
from .obstacles import refuse_ignored, refuse_obstacles
from .template import COPIED, JOINED, KEPT, add_lines, text_of

REMOTE = "storage"
"""The name of the DVC remote that `graft init --remote` adds."""


@dataclass
class Begun:
    """A project, and what this call did.

    Attributes:
        root: its folder.
        created: the files that are new, and `git` if the repository is.
        extended: files of lines that have got more.
        kept: files that are there already, and differ from those of a new project.
        left_out: a file that was not written -> why.
        dvc_remote, git_remotes: where `dvc push` and `git push` can send it; empty without one.
    """

    root: Path
    created: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    dvc_remote: str = ""
    git_remotes: list[str] = field(default_factory=list)


def init(folder: Path, remote: str = "") -> Begun:
    """Makes `folder` a project, or completes it.

    Args:
        remote: the address of a DVC remote; a folder's may be relative to the current folder.

    Raises:
        GraftError: the folder cannot be one, or holds something that Graft would replace.
    """
    if shutil.which("git") is None:
        raise GraftError("git is not installed", got="no `git` in the PATH", todo="install git, then try again")
    begun = Begun(folder.resolve())
    try:
        refuse_obstacles(begun.root, remote)
        begun.root.mkdir(parents=True, exist_ok=True)
        top = _repository(begun)
        refuse_ignored(begun.root)
        _write_files(begun, top)
    except OSError as error:
        raise GraftError(
            f"{begun.root} cannot become a project",
            got=f"{error.strerror or error}: {error.filename}" if error.filename else str(error),
            allowed="a folder in which you may write",
            todo="set the missing permissions or name another folder, then try again: `graft init` continues",
        ) from error
    begun.dvc_remote = _dvc_remote(begun.root, remote)
    begun.git_remotes = git(begun.root, "remote", doing="listing remotes").split()
    return begun


def _repository(begun: Begun) -> Path:
    """The top folder of the repository that the project is in; a new one if it is in none."""
    done = try_git(begun.root, "rev-parse", "--show-toplevel")
    if done.returncode and "not a git repository" in done.stderr:
        git(begun.root, "init", "--quiet", "--initial-branch", "main", doing="creating a repository")
        begun.created.append("git")
        return begun.root
    return Path(git(begun.root, "rev-parse", "--show-toplevel", doing="looking for the repository"))


def _write_files(begun: Begun, top: Path) -> None:
    """dvc.yaml is the last: with it the folder is a project."""
    root = begun.root
    for name in JOINED:
        there = (root / name).exists()
        if add_lines(root / name, text_of(name)):
            (begun.extended if there else begun.created).append(name)
    if record_code(root) is not None:
        begun.created.append(CODE)
    for name in (*KEPT, "requirements.txt", *COPIED):
        if name.startswith(".github/") and top.resolve() != root:
            begun.left_out[name] = f"GitHub reads it only at the top of the repository, {top}"
        else:
            _write(begun, name)


def _write(begun: Begun, name: str) -> None:
    file, text = begun.root / name, text_of(name)
    if not file.exists():
        with whole_file(file) as part:
            part.write_text(text, encoding="utf-8")
        begun.created.append(name)
    elif file.read_bytes() != text.encode():
        begun.kept.append(name)


def _dvc_remote(root: Path, address: str) -> str:
    """The address of DVC's default remote, which is `address` if it had none; empty if there is none.

    Raises:
        GraftError: it has another one.
    """
    name, wanted = dvc_config.dvc_remote(root), address
    if address and "://" not in address:
        wanted = str(Path(address).resolve())  # as DVC gives it
    if not name and address:
        given = os.path.relpath(wanted, root) if "://" not in wanted and not Path(address).is_absolute() else wanted
        dvc.dvc(root, ["remote", "add", "--default", REMOTE, given], "adding the remote")
        name = REMOTE
    found = dvc_config.dvc_remote_addresses(root).get(name, "")
    if address and found != wanted:
        raise GraftError(
            "this project has a DVC remote already",
            got=redacted(address),
            allowed=redacted(f"{name}, {found}"),
            todo=f"to replace it: dvc remote modify {name} url ADDRESS",
        )
    return redacted(found)
