"""Where unattended runs get new images: from a commit, a bucket or folder that DVC follows, or an inbox."""

from __future__ import annotations

from pathlib import Path

from graft.tasks.addresses import without_secrets
from graft.tasks.common.core.errors import DataError, GraftError

from ..ingest.inbox import take_over
from ..runtime.params import RetrainParams
from ..versioning.dvc import dvc, tracked_file
from .worktree import Workspace


def bring_new(workspace: Workspace, params: RetrainParams) -> str:
    """Updates data/raw.dvc in the worktree to the newest images; returns a line for the log.

    Raises:
        GraftError: the source cannot be used.
    """
    if params.source == "inbox":
        place = inbox_of(workspace, params)
        assert place is not None  # the parameters are checked
        return take_over(place, workspace.root, params.settle_seconds).words()
    if params.source == "import-url":
        return _update(workspace.root)
    _check_tracked(workspace)
    return f"git: {workspace.branch} at {workspace.commit[:12]}"


def inbox_of(workspace: Workspace, params: RetrainParams) -> Path | None:
    """The folder of the inbox; None without one. Its folder `unlabelled` is taken whatever `retrain.source` is."""
    if not params.inbox:
        return None
    inbox = Path(params.inbox)
    return inbox if inbox.is_absolute() else workspace.project / inbox


def _update(root: Path) -> str:
    file = root / "data" / "raw.dvc"
    entry = tracked_file(file)
    if not entry.get("deps"):
        raise DataError(
            "params.yaml: retrain.source is import-url, but data/raw.dvc was not made by `dvc import-url`",
            got="no data/raw.dvc" if not entry else "data/raw.dvc without `deps`",
            allowed="dvc import-url URL data/raw, committed",
            todo="import the images with that command, or set `retrain.source: git`",
        )
    before = file.read_bytes()
    dvc(root, ["update", "--quiet", "data/raw.dvc"], "looking for new images at the source of data/raw")
    changed = file.read_bytes() != before
    return f"import-url: {'new images' if changed else 'nothing new'} at {without_secrets(entry['deps'][0]['path'])}"


def _check_tracked(workspace: Workspace) -> None:
    if not (workspace.root / "data" / "raw.dvc").is_file():
        raise GraftError(
            f"{workspace.branch} has no data/raw.dvc",
            got=f"commit {workspace.commit[:12]}",
            allowed="images under DVC, and data/raw.dvc committed",
            todo="graft import PATH; git add data/raw.dvc; git commit; git push",
        )
