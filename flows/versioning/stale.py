"""Whether preprocess has seen the images that are here. A folder that changes under it leaves a manifest that no later
run would replace, because DVC hashes what a stage depends on only when the stage has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.shards import is_stored
from graft.tasks.preprocess.layouts import TABLE, layout_of
from graft.tasks.preprocess.mask_names import masks_in
from graft.tasks.preprocess.walk import files_on_disk

from .dvc import locked_raw, raw_hash, raw_listing, repro, stages_of

if TYPE_CHECKING:
    import pandas as pd

State = dict[str, tuple[int, int, int]]
"""Path of a file below data/raw -> size, time of the last change in nanoseconds, inode."""


@contextmanager
def unchanged(raw: Path) -> Iterator[None]:
    """Raises:
    DataError: files were added, removed or written while the block ran.
    """
    before = state_of(raw)
    yield
    after = state_of(raw)
    if before != after:
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise DataError(
            f"{raw} changed while preprocess read it",
            got=f"{len(names):,} files: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            todo="wait until nothing writes there, then run `graft repro` again",
        )


def state_of(raw: Path) -> State:
    found = {name: (raw / name).stat() for name in files_on_disk(raw) if (raw / name).exists()}
    return {name: (seen.st_size, seen.st_mtime_ns, seen.st_ino) for name, seen in found.items()}


def other_images(root: Path) -> str:
    """The images by which the manifest differs from data/raw, though DVC takes it for up to date; empty if there are
    none, or if DVC would run preprocess anyway."""
    paths = Paths(root)
    files = [paths.manifest / name for name in ("manifest.parquet", "rejected.parquet")]
    listing = raw_listing(root)
    if (
        not listing
        or not all(file.is_file() for file in files)
        or locked_raw(stages_of(root / "dvc.lock")) != raw_hash(root)
    ):
        return ""
    import pandas as pd

    manifest, rejected = (pd.read_parquet(file) for file in files)
    seen = dict(zip(manifest["path"], manifest["image_id"], strict=True))
    told = {
        "missing": [name for name in seen if name not in listing and not is_stored(paths.raw / name)],
        "changed": [name for name, digest in seen.items() if listing.get(name, digest) != digest],
        "new": sorted({*listing} - {*seen, *rejected["path"], *_masks(manifest, listing), TABLE}),
    }
    return "; ".join(f"{len(names):,} {word}, such as {names[0]}" for word, names in told.items() if names)


def _masks(manifest: pd.DataFrame, listing: Mapping[str, str]) -> frozenset[str]:
    """Files that say where the defects of images are: by a table, or by their names."""
    told = frozenset(manifest["mask"].dropna()) if "mask" in manifest else frozenset()
    return told if TABLE in listing else told | frozenset(masks_in(listing, layout_of(listing)).names)


def refuse_other_images(root: Path) -> None:
    """Raises:
    DataError: the manifest lists other images than data/raw has.
    """
    differ = other_images(root)
    if differ:
        raise DataError(
            "data/manifest does not list the images of data/raw, which must have changed while preprocess read it",
            got=differ,
            todo="run `graft repro`, which runs preprocess again; with DVC alone, "
            "`dvc repro --force --single-item preprocess`",
        )


def preprocess_again(root: Path) -> tuple[str, int]:
    """Runs preprocess if it has seen other images: by what they differ, and DVC's exit code."""
    differ = other_images(root)
    return differ, repro(root, ["--force", "--single-item", "preprocess"]) if differ else 0
