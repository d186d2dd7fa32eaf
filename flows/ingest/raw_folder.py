"""Replaces data/raw as a whole: at every moment it is the old one or the new one, and DVC has it in the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import flush_tree, whole_folder
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say

from ..runtime.turns import turn
from ..versioning import dvc

PATIENCE = 600.0
"""Seconds for which an import waits for another one of the same project."""


def one_at_a_time(paths: Paths) -> AbstractContextManager[None]:
    """Lets one import at a time work on a project.

    Raises:
        TransientError: another import takes longer than `PATIENCE`.
    """
    return turn(paths.state / "import.lock", "another import", PATIENCE, say)


def refuse_a_link(raw: Path) -> None:
    """DVC does not follow links to data that it tracks, and replacing the link would leave the images behind.

    Raises:
        DataError: data/raw is a link, or in one.
    """
    real = Path(os.path.realpath(raw))
    if real != Path(os.path.realpath(raw.parent.parent)) / "data" / "raw":
        raise DataError(
            f"{raw} is a link, or is inside one",
            got=f"it leads to {real}",
            allowed="a folder of the project itself",
            todo="remove the link and import again; to keep the images on another disk, set `dvc cache dir` to a "
            "folder there and `dvc config cache.type symlink`",
        )


@contextmanager
def replacing(paths: Paths, let_dvc_in: Callable[[], None], what: str) -> Iterator[Path]:
    """An empty folder that becomes data/raw, and is put under DVC, if the block succeeds; else data/raw is as before.

    Args:
        let_dvc_in: is called before DVC is.
        what: what is being done, for the error.

    Raises:
        GraftError: the disk or DVC fails.
    """
    try:
        with _as_before_on_failure(paths.raw) as aside:
            with whole_folder(paths.raw) as folder:
                yield folder
                flush_tree(folder)  # now, so that data/raw is missing for no longer than two renames take
                if paths.raw.exists():
                    paths.raw.replace(aside)
            let_dvc_in()
            dvc.dvc_add(paths.root, "data/raw")
    except OSError as error:
        raise GraftError(
            f"{what} {paths.raw}, which is unchanged",
            got=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
            todo="free some space or set the missing permissions, then try again",
        ) from error


def put_back(raw: Path) -> None:
    """Restores the earlier images if an import was killed before the new ones were in place; else deletes them."""
    if _aside(raw).exists() and not raw.exists():
        _aside(raw).replace(raw)
    shutil.rmtree(_aside(raw), ignore_errors=True)


def same_file(old: Path, new: Path) -> None:
    """Puts a file of the project into the new folder: a hard link costs neither time nor space."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def refuse_too_large(folder: Path, size: int, files: int = 0) -> None:
    """Raises:
    GraftError: the disk has no room for so many bytes, or files.
    """
    free, entries = shutil.disk_usage(folder).free, os.statvfs(folder)
    if entries.f_files and files > entries.f_favail:
        raise GraftError(
            f"the disk of {folder} cannot hold so many files",
            got=f"{entries.f_favail:,} more",
            allowed=f"{files:,}",
            todo="use a disk with more inodes, or leave the images in shards",
        )
    if size > free:
        raise GraftError(
            f"the disk of {folder} has no room for the images",
            got=f"{free / 1e6:,.0f} MB free",
            allowed=f"{size / 1e6:,.0f} MB",
            todo="free some space, then try again",
        )


def _aside(raw: Path) -> Path:
    return raw.with_name(f".{raw.name}.before.part")


@contextmanager
def _as_before_on_failure(raw: Path) -> Iterator[Path]:
    """Yields a place for the earlier images. If the block fails they are restored; if there were none, none remain."""
    aside, before = _aside(raw), raw.stat().st_ino if raw.exists() else None
    try:
        yield aside
    except BaseException:
        if raw.exists() and raw.stat().st_ino != before:  # never images that were not set aside
            failed = raw.with_name(f".{raw.name}.failed.part")
            shutil.rmtree(failed, ignore_errors=True)  # of an import that was killed during its clean-up
            raw.replace(failed)
            shutil.rmtree(failed, ignore_errors=True)
        if aside.exists():
            aside.replace(raw)
        raise
    shutil.rmtree(aside, ignore_errors=True)
