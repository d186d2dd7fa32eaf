"""Where a command that works without a project keeps its cache and finds weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths, find_root


@dataclass(frozen=True)
class Place:
    """The project's folders, or the user's.

    Attributes:
        root: of the project; None outside one.
        cache: for converted networks and other results; may be deleted.
        weights: where `auto` looks for files.
    """

    root: Path | None
    cache: Path
    weights: Path


def place_of(project: Path) -> Place:
    """The project at or above `project`; if there is none and none was named, the user's cache and ./data/weights.

    Raises:
        GraftError: the named folder is not a project, or the user's cache cannot be created.
    """
    try:
        paths = Paths(find_root(project))
    except GraftError:
        if project != Path():
            raise
        return Place(None, user_cache(), project.resolve() / "data" / "weights")
    return Place(paths.root, paths.cache, paths.weights)


def user_cache() -> Path:
    """$XDG_CACHE_HOME/graft, by default ~/.cache/graft; created if it does not exist.

    Raises:
        GraftError: it cannot be created.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraftError(
            f"{folder} cannot be used as a cache",
            got=error.strerror,
            todo="set XDG_CACHE_HOME to another folder, or work in a project",
        ) from error
    return folder
