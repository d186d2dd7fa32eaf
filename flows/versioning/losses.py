"""Images that no longer exist anywhere: neither in data/raw nor in DVC's cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.yaml_files import parse_yaml
from graft.tasks.common.images.shards import shards_of

from . import dvc
from .git import try_git
from .image_listings import images_in, shards_in

TRACKED = "data/raw.dvc"
LOCK = "dvc.lock"

NAMED = 5
"""Lost images that the error names."""


def require_no_loss(root: Path) -> None:
    """Refuses to go on without images that data/raw.dvc lists, as it is or as it was last committed, or that a run has
    used whose result nobody has committed.

    `dvc repro` would rewrite data/raw.dvc without a word. An image that was removed and is still in DVC's cache can be
    restored, so it is not a loss. To commit data/raw.dvc without the images is to agree that they are gone.

    Raises:
        DataError: images are in neither place.
    """
    raw = Paths(root).raw
    if not raw.is_dir():
        return
    now = dvc.raw_files(root)
    listings, gone, here = [now, *_earlier(root)], dict[str, str](), set[str]()
    for listing in listings:
        for name, digest in listing.items():
            if (raw / name).exists():
                here.add(digest)
            else:
                gone[name] = digest
    lost = {name: digest for name, digest in gone.items() if digest not in here and not dvc.is_cached(root, digest)}
    if not lost:
        return
    with suppress(DataError):  # half a shard is here: the loss says more
        here |= set() if (shards := shards_of(raw)) is None else {*shards.hashes().values()}
    images = [name for name, digest in _images(root, lost, listings).items() if digest not in here]
    if images:
        raise _loss(images, listed=now.keys() >= {*lost})


def _images(root: Path, lost: Mapping[str, str], listings: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Path -> md5 of what is lost, with its images in place of each shard whose index is known."""
    found = dict(lost)
    for listing in listings:
        for tar, index in shards_in(listing).items():
            inside = images_in(root, {tar: listing[tar], index: listing[index]}) if tar in found else None
            if inside is not None and found[tar] == listing[tar]:
                del found[tar]
                found.pop(index, None)
                found |= inside
    return found


def _loss(lost: list[str], listed: bool) -> DataError:
    """Args:
    listed: whether data/raw.dvc still lists them, so that DVC would fetch them.
    """
    more = f" and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
    first = "" if listed else f"`git checkout HEAD -- {TRACKED}` if that lists them, then "
    return DataError(
        f"{len(lost):,} image{'s are' if len(lost) > 1 else ' is'} neither in data/raw nor in DVC's cache",
        got=", ".join(lost[:NAMED]) + more,
        todo=f"restore them: {first}`dvc pull {TRACKED}`, or a backup; if they are to go: `dvc add data/raw`, "
        f"then `git commit {TRACKED}`",
    )


def _earlier(root: Path) -> Iterator[dict[str, str]]:
    """Path -> md5 of the images as data/raw.dvc was last committed, and as an uncommitted run has seen them; nothing if
    data/raw.dvc is committed as it is."""
    outs = _committed(root, TRACKED).get("outs") or [{}]
    committed = str(outs[0].get("md5", ""))
    if committed == dvc.raw_hash(root) or try_git(root, "rev-parse", "--git-dir").returncode:
        return
    yield dvc.listing_of(root, committed) or {}
    seen = dvc.locked_raw(dvc.stages_of(root / LOCK))
    if seen != dvc.locked_raw(_committed(root, LOCK).get("stages") or {}):
        yield dvc.listing_of(root, seen) or {}


def _committed(root: Path, name: str) -> dict[str, Any]:
    """A YAML file as it was last committed; empty if it was not."""
    done = try_git(root, "show", f"HEAD:./{name}")
    return parse_yaml(done.stdout.encode(), root / name) or {} if done.returncode == 0 else {}
