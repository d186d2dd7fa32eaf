"""DVC's configuration of a project: its cache and its remotes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError


def cache_folder(root: Path) -> Path:
    """The folder of DVC's cache, as configured."""
    files = (root / ".dvc" / name for name in ("config", "config.local"))
    return _cache_folder(root, tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files))


@lru_cache(maxsize=64)
def _cache_folder(root: Path, _changed: tuple[int, ...]) -> Path:
    """Read once for each state of the project's configuration: DVC takes 10 ms, and callers ask for every file."""
    configured = configuration(root)["cache"].get("dir")
    return Path(configured) if configured else root / ".dvc" / "cache"


def configuration(root: Path) -> Any:
    """DVC's configuration of the project.

    Raises:
        GraftError: a file of it cannot be read.
    """
    from dvc.config import Config, ConfigError

    try:
        return Config(str(root / ".dvc"))
    except ConfigError as error:
        raise GraftError(
            f"{root / '.dvc' / 'config'} (or config.local) is not a configuration of DVC's",
            got=" ".join(str(error).split()),
            todo="correct it, or restore it: `git checkout HEAD -- .dvc/config`",
        ) from error


def dvc_remote(root: Path) -> str:
    """The name of DVC's default remote; empty if there is none."""
    return str(configuration(root)["core"].get("remote") or "")


def dvc_remote_addresses(root: Path) -> dict[str, str]:
    """Name -> address of DVC's remotes; for a folder its absolute path."""
    return {name: str(settings["url"]) for name, settings in configuration(root)["remote"].items()}


def cache_types(root: Path) -> list[str]:
    """How DVC links files from its cache: reflink, hardlink, symlink or copy, as configured."""
    return list(configuration(root)["cache"].get("type") or ["reflink", "copy"])


def share_cache(root: Path, place: Path, types: Sequence[str] = ()) -> None:
    """Makes DVC in another worktree use this project's cache and its remotes.

    Args:
        types: of links into the cache; by default as configured there.
    """
    from dvc.config import Config

    with Config(str(place / ".dvc")).edit("local") as settings:
        settings["cache"] = {"dir": str(cache_folder(root).resolve()), **({"type": list(types)} if types else {})}
        for name, address in dvc_remote_addresses(root).items():  # a relative one would lead elsewhere from there
            settings.setdefault("remote", {}).setdefault(name, {})["url"] = address
