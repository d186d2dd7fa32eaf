"""What a folder of images means, by DVC's hash of it: the members of its shards, as if each were a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graft.tasks.common.core.files import md5
from graft.tasks.common.images.shards import INDEX, TAR, shards_of

from .dvc_config import cache_folder


def shards_in(listing: Mapping[str, str]) -> dict[str, str]:
    """Shard -> its index, directly in a folder with these files."""
    pairs = {name: name.removesuffix(TAR) + INDEX for name in listing if name.endswith(TAR) and "/" not in name}
    return {tar: index for tar, index in pairs.items() if index in listing}


def images_in(root: Path, listing: Mapping[str, str]) -> dict[str, str] | None:
    """Path -> md5 of the files in data/raw, with the members of shards in place of these; None if an index is neither
    in DVC's cache nor in data/raw.

    Args:
        listing: path -> md5 of the files as DVC lists them.

    Raises:
        DataError: an index is damaged.
    """
    shards = shards_in(listing)
    if not shards:
        return dict(listing)
    from graft.tasks.common.images.shard_index import read_index

    beside = {*shards, *shards.values()}
    found: dict[str, str] = {}
    for tar, index in shards.items():
        file = _file(root, index, listing[index])
        if file is None:
            return None
        found |= read_index(file, root / "data" / "raw" / tar, None).hashes()
    return found | {name: digest for name, digest in listing.items() if name not in beside}


def images_now(raw: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Path -> md5 of the files in a folder as they are now, with the members of its shards in place of these.

    Args:
        files: path -> md5 of the files, those of shards among them.

    Raises:
        DataError: a shard is damaged.
    """
    shards = shards_of(raw) if raw.is_dir() else None
    if shards is None:
        return dict(files)
    return shards.hashes() | {name: digest for name, digest in files.items() if name not in shards.files}


def _file(root: Path, index: str, digest: str) -> Path | None:
    cached, here = cache_folder(root) / "files" / "md5" / digest[:2] / digest[2:], root / "data" / "raw" / index
    if cached.is_file():
        return cached
    return here if here.is_file() and md5(here) == digest else None
