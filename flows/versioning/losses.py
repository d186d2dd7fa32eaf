"""Images that no longer exist anywhere: neither in data/raw nor in DVC's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.yaml_files import parse_yaml

from . import dvc
from .git import try_git

TRACKED = "data/raw.dvc"

NAMED = 5
"""Lost images that the error names."""


def require_no_loss(root: Path) -> None:
    """Refuses to go on without images that data/raw.dvc lists, as it is or as it was last committed.

    `dvc repro` would rewrite data/raw.dvc without a word. An image that was removed and is still in DVC's cache can be
    restored, so it is not a loss. To commit data/raw.dvc without the images is to agree that they are gone.

    Raises:
        DataError: images are in neither place.
    """
    raw = Paths(root).raw
    if not raw.is_dir():
        return
    gone, here = {}, set()
    for listing in _listings(root):
        for name, digest in listing.items():
            if (raw / name).exists():
                here.add(digest)
            else:
                gone[name] = digest
    lost = [name for name, digest in gone.items() if digest not in here and not dvc.is_cached(root, digest)]
    if lost:
        more = f" and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
        raise DataError(
            f"{len(lost):,} image{'s are' if len(lost) > 1 else ' is'} neither in data/raw nor in DVC's cache",
            got=", ".join(lost[:NAMED]) + more,
            todo=f"restore them: `dvc pull {TRACKED}`, or a backup; if they are to go: `dvc add data/raw`, "
            f"then `git commit {TRACKED}`",
        )


def _listings(root: Path) -> Iterator[dict[str, str]]:
    """Path -> md5 of the images: by data/raw.dvc as it was last committed, and as it is."""
    yield dvc.raw_listing(root)
    committed = try_git(root, "show", f"HEAD:./{TRACKED}")
    if committed.returncode == 0:
        outs = (parse_yaml(committed.stdout.encode(), root / TRACKED) or {}).get("outs") or [{}]
        yield dvc.listing_of(root, str(outs[0].get("md5", ""))) or {}
