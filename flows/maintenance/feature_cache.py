"""`graft cache`: what the feature cache contains, whether it is intact, and how to make it smaller."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import json_digest, read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress
from graft.tasks.common.data.eyes import each
from graft.tasks.common.feature_cache.segments import compact, count_images, damage

from ..runtime import claims, processes

ENGINE = ("engine", "device", "precision")
"""What computed the features, as fingerprint.json names it."""

CURRENT = "data/features"
"""The user of the features that the project has now."""


@dataclass(frozen=True)
class Entry:
    """The features of one fingerprint.

    Attributes:
        facts: of fingerprint.json; empty if there is none, because the run that computed them was interrupted.
        used_by: who would have to recompute them: `data/features`, or an alias of the registered model.
        last_used: seconds since 1970.
    """

    digest: str
    folder: Path
    facts: dict[str, Any]
    images: int
    segments: int
    size: int
    last_used: float
    used_by: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """For a table or JSON; what is not known is None."""
        return {
            "fingerprint": self.digest,
            "backbone": self.facts.get("backbone"),
            "what": self._content(),
            "computed_by": " ".join(str(self.facts[key]) for key in ENGINE if key in self.facts) or None,
            "dtype": self.facts.get("dtype"),
            "images": self.images,
            "segments": self.segments,
            "megabytes": round(self.size / 1e6, 1),
            "last_used": f"{datetime.fromtimestamp(self.last_used):%Y-%m-%d %H:%M}",
            "used_by": list(self.used_by),
        }

    def _content(self) -> str | None:
        if "cut_before" in self.facts:
            return f"maps before {self.facts['cut_before']}"
        if "maps" in self.facts:
            levels = self.facts["maps"]["levels"]
            sizes = ", ".join(f"{one['channels']} x {one['height']} x {one['width']}" for one in levels)
            return f"maps ({self.facts['maps']['neck']}): {sizes}"
        return "features" if self.facts else None


def list_cache(root: Path, aliases: dict[str, str]) -> list[Entry]:
    """All fingerprints, the most recently used first.

    Args:
        aliases: an alias of the registered model -> the fingerprint of its features; several are separated by commas.
    """
    folder = Paths(root).cache / "features"
    users: dict[str, list[str]] = {}
    for user, digests in {**_current(root), **aliases}.items():
        for digest in digests.split(","):
            users.setdefault(digest, []).append(user)
    entries = [_entry(place, tuple(users.get(place.name, ()))) for place in folder.glob("*") if place.is_dir()]
    return sorted(entries, key=lambda entry: entry.last_used, reverse=True)


def _current(root: Path) -> dict[str, str]:
    file = Paths(root).features / "fingerprint.json"
    if not file.is_file():
        return {}
    fingerprint = read_json(file)
    maps = [fingerprint["maps"]] if "maps" in fingerprint else []
    return {CURRENT: ",".join(one["digest"] for one in [*each(fingerprint), *maps])}


def _entry(folder: Path, used_by: tuple[str, ...]) -> Entry:
    note = folder / "fingerprint.json"
    try:
        facts = read_json(note)
    except (FileNotFoundError, ValueError):  # cut short by a crash
        facts = {}
    segments = list(folder.glob("*.safetensors"))
    size = sum(_size(file) for file in folder.iterdir())
    images = count_images(folder)
    used = (note if note.is_file() else folder).stat().st_mtime
    return Entry(folder.name, folder, facts, images, len(segments), size, used, used_by)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # a run beside this one has just renamed it
        return 0


def verify(root: Path, *, drop: bool) -> list[dict[str, str]]:
    """Reads every segment completely and compares it with its checksum.

    Args:
        drop: whether to delete damaged segments now; a run that needs them drops them anyway.

    Returns:
        The damaged ones: `segment` (from the project's root) and `reason`.
    """
    segments = sorted((Paths(root).cache / "features").glob("*/*.safetensors"))
    found = []
    with progress("cache: verifying", len(segments), "segments") as bar:
        for segment in segments:
            reason = damage(segment)
            if reason:
                found.append({"segment": segment.relative_to(root).as_posix(), "reason": reason})
                if drop:
                    segment.unlink(missing_ok=True)
            bar.add()
    return found


def merge(root: Path) -> dict[str, int]:
    """Merges small segments, see `graft.tasks.common.feature_cache.segments.compact`.

    Returns:
        Fingerprint -> how many fewer segments it has now; without those that had nothing to merge.
    """
    folders = sorted(folder for folder in (Paths(root).cache / "features").glob("*") if folder.is_dir())
    fewer = {}
    with progress("cache: merging", len(folders), "fingerprints") as bar:
        for folder in folders:
            fewer[folder.name] = compact(folder)
            bar.add()
    return {name: count for name, count in fewer.items() if count}


def collect(
    root: Path, aliases: dict[str, str], *, keep: Collection[str], gigabytes: float | None, dry_run: bool
) -> list[Entry]:
    """Deletes fingerprints, with the graphs that nothing needs any more.

    The most recently used fingerprint always stays: an active run has no data/features yet.

    Args:
        keep: users whose features stay (`data/features`, `champion`, `challenger`).
        gigabytes: delete the least recently used first, until the cache is below this size; None deletes all others.
        dry_run: delete nothing.

    Returns:
        The fingerprints that were, or would be, deleted.

    Raises:
        GraftError: the features of an alias are to be kept, and they are not known; or `graft rank` is running.
    """
    if not dry_run:
        _check_nobody_ranks(root)
    for user in keep:
        if user not in {CURRENT, *aliases}:
            raise GraftError(
                f"the features of the model `{user}` are not known",
                got=", ".join(sorted(aliases)) or "no model",
                allowed="an alias of a model that was registered with the fingerprint of its features",
                todo="leave the option out, or register the model again",
            )
    entries = list_cache(root, aliases)
    total = sum(entry.size for entry in entries)
    removed = []
    for entry in reversed(entries):
        enough = gigabytes is not None and total <= gigabytes * 1e9
        if enough or entry is entries[0] or set(entry.used_by) & set(keep):
            continue
        removed.append(entry)
        total -= entry.size
    if removed and not dry_run:
        for entry in removed:
            shutil.rmtree(entry.folder)
        _remove_graphs(root, [entry for entry in entries if entry not in removed])
    return removed


def _remove_graphs(root: Path, kept: list[Entry]) -> None:
    """Deletes graphs of backbones without features: they are rebuilt in seconds."""
    cache = Paths(root).cache
    needed = [_graph(entry.facts) for entry in kept]
    for spec in cache.glob("graphs/*/spec.json"):
        if _graph(read_json(spec)) not in needed:
            shutil.rmtree(spec.parent)


def _graph(facts: dict[str, Any]) -> list[Any]:
    """The graph that a fingerprint or a spec belongs to; those of earlier versions have no form."""
    return [facts.get(key) for key in ("backbone", "weights_sha256", "form")]


@contextmanager
def not_collected(root: Path) -> Iterator[None]:
    """Keeps `collect` from removing anything while the block runs, which works with several fingerprints at once."""
    with claims.claimed(_marks(root) / f"{json_digest(processes.key(processes.me()))}.json"):
        yield


def _check_nobody_ranks(root: Path) -> None:
    claims.clear_dead(_marks(root))
    for mark in _marks(root).glob(claims.PATTERN):
        raise GraftError(
            "`graft rank` is running and needs its features in the cache",
            got=f"the process {claims.read_claim(mark).get('process', 'of another rank')}",
            todo=f"wait until it has ended; if it ran on another machine and has ended, delete {mark}",
        )


def _marks(root: Path) -> Path:
    return Paths(root).state / "rankings"
