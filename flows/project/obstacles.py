"""What keeps a folder from becoming a project; found before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

from graft.tasks.addresses import redacted
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES

from ..runtime.params import load_params
from ..versioning import dvc
from ..versioning.destination import OWN_FILES
from ..versioning.git import try_git
from .template import FOLDER

TRACKED = (
    "dvc.yaml", "dvc.lock", "params.yaml", "graft.lock", ".dvc/config", "data/raw.dvc", "data/pins.csv",
    "data/labels.csv", "metrics/evaluate.json",
)  # fmt: skip
"""Files of a project that git must not ignore."""


def refuse_obstacles(root: Path, remote: str) -> None:
    """Refuses a folder inside another project, files of the user's with the names of Graft's, and a password in the
    address of a remote.

    Raises:
        GraftError: one of these; it names the file.
    """
    if re.match(r"[a-z0-9+.-]+://[^/?#]*:[^/?#]*@", remote, re.IGNORECASE):
        raise GraftError(
            "--remote: the address has a password, and git would track it",
            got=redacted(remote),
            allowed="an address without a password",
            todo="leave it out; afterwards: dvc remote modify --local storage password PASSWORD, which git ignores",
        )
    outer = next((parent for parent in root.parents if is_project(parent)), None)
    if outer is not None:
        raise GraftError(
            f"{root} lies in another Graft project",
            got=str(outer),
            todo="name a folder outside it, or use that project: graft -h",
        )
    if all((root / name).exists() for name in OWN_FILES):
        raise GraftError(
            f"{root} is Graft's own repository",
            allowed="a folder outside it",
            todo="graft init FOLDER; here, `make demo` trains with the sample",
        )
    if is_project(root):
        return
    if (root / "dvc.yaml").exists():
        raise _in_the_way(root / "dvc.yaml", "a DVC pipeline of your own", "a folder without dvc.yaml")
    _refuse_params(root / "params.yaml")
    _refuse_outputs(root)


def is_project(folder: Path) -> bool:
    """Whether its dvc.yaml has Graft's stages."""
    try:
        stages = dvc.stages_of(folder / "dvc.yaml")
    except (GraftError, OSError):
        return False
    return set(STAGES) <= set(stages)


def _refuse_params(file: Path) -> None:
    if not file.exists():
        return
    try:
        load_params(file)
    except GraftError as error:
        raise _in_the_way(file, error.what, "parameters of Graft's stages") from error


def _refuse_outputs(root: Path) -> None:
    """DVC removes the outputs of a stage before it runs the stage, even if they are files of the user."""
    stages = dvc.stages_of(FOLDER / "pipeline.yaml").values()
    outs = [out for stage in stages for out in dvc.names_of(stage["outs"])]
    there = next((root / out for out in outs if (root / out).exists()), None)
    if there is not None:
        raise _in_the_way(there, "files of your own, where a stage would write", "a folder without it")


def _in_the_way(place: Path, got: str, allowed: str) -> GraftError:
    return GraftError(
        f"{place} is in the way, and is left as it is",
        got=got,
        allowed=allowed,
        todo="move or rename it, or make the project in a folder of its own: graft init FOLDER",
    )


def refuse_ignored(root: Path) -> None:
    """Refuses a folder in which git ignores what a project must commit.

    Raises:
        GraftError: it names the rule.
    """
    found = try_git(root, "check-ignore", "--verbose", "--no-index", "--", *TRACKED)
    if found.returncode == 0:
        rule, _, name = found.stdout.splitlines()[0].partition("\t")
        raise GraftError(
            "git ignores files that a project must commit",
            got=f"{name}, by {rule}",
            todo="remove that line or make it narrower (`/data/` -> `/data/raw`), then try again: it continues",
        )
