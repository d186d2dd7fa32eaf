"""Images that become members of shards. New ones get shards with the next numbers; those that are there stay as they
are, until there are many small ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pyarrow import parquet

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.progress import progress, say
from graft.tasks.common.images.shard_index import Index, in_hex, read_index
from graft.tasks.common.images.shard_size import SIZE_MB
from graft.tasks.common.images.shard_writer import SIZE_KEY, ShardWriter
from graft.tasks.common.images.shards import Member, index_of, opening_member, shards_of, stored
from graft.tasks.preprocess.walk import open_regular

from .raw_folder import refuse_too_large

OURS = re.compile(r"shard-(\d{6,})\.tar")
"""The names of shards that Graft writes."""

SMALL = 1 / 16
"""The share of its size below which a shard is small."""

MANY_SMALL = 16
"""More small shards than these become one: nights that add a few images each would leave thousands."""


def is_sharded(raw: Path) -> bool:
    return raw.is_dir() and shards_of(raw) is not None


def size_for(raw: Path, asked: int | None) -> int | None:
    """The size of new shards in MB: as asked, or as those that are there have; None if images remain files."""
    return asked or (_size_there(raw) if is_sharded(raw) else None)


def _size_there(raw: Path) -> int:
    """The size for which the newest shard was written."""
    ours = our_shards(raw)
    return (shard_size(ours[-1]) if ours else None) or SIZE_MB


def our_shards(folder: Path) -> list[Path]:
    """The shards that Graft wrote, by their numbers."""
    found = [file for file in folder.glob("shard-*.tar") if OURS.fullmatch(file.name) and shard_size(file)]
    return sorted(found, key=_number)


def shard_size(shard: Path) -> int | None:
    """The size in MB for which a shard was written; None if Graft did not write it.

    Raises:
        DataError: its index is damaged.
    """
    with suppress(OSError, ValueError):
        metadata = parquet.read_schema(shard.with_name(index_of(shard.name))).metadata or {}
        return int(metadata[SIZE_KEY]) if SIZE_KEY in metadata else None
    return None


def _number(shard: Path) -> int:
    found = OURS.fullmatch(shard.name)
    return int(found[1]) if found else -1


def next_number(folder: Path) -> int:
    return max(map(_number, folder.glob("shard-*.tar")), default=-1) + 1


@contextmanager
def opened(file: Path, within: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file of a source, or a member of its shards, and its number of bytes; see `open_regular`.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        inside = os.fspath(file).startswith(f"{os.fspath(within)}/")
        content: BinaryIO = open_regular(file, within if inside else file.parent)
    except OSError as error:
        member = stored(file)
        if member is None:
            raise DataError(
                f"{file} cannot be read", got=error.strerror, todo="make it readable, or remove it from the folder"
            ) from error
        with opening_member(member) as part:
            yield part, member.size
        return
    with content:
        yield content, os.fstat(content.fileno()).st_size


def sizes_of(files: Mapping[str, Path]) -> list[tuple[str, int]]:
    """The files in the order in which they become members, with their numbers of bytes."""
    return [(place, _size(files[place])) for place in sorted(files)]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        member = stored(file)
        if member is None:
            raise
        return member.size


def write_shards(folder: Path, files: Mapping[str, Path], source: Path, size_mb: int) -> dict[str, str]:
    """Writes the files into the next shards of a folder, sorted by their places.

    Args:
        files: place below data/raw -> the file.
        source: the folder that holds them, without links.

    Returns:
        Place -> md5.

    Raises:
        DataError: a file cannot be read.
        GraftError: the disk has no room for them.
        OSError: writing failed.
    """
    refuse_too_large(folder, sum(size for _, size in sizes_of(files)))
    written = {}
    with (
        progress("writing shards", len(files), "images") as bar,
        ShardWriter(folder, size_mb, next_number(folder)) as writer,
    ):
        for place in sorted(files):
            with opened(files[place], source) as (content, size):
                written[place] = writer.add(place, content, size)
            bar.add()
    return written


def members_of(shard: Path) -> Iterator[tuple[str, Member]]:
    """Name and place of each member, in the order of the file.

    Raises:
        DataError: the index is damaged.
    """
    index: Index = read_index(shard.with_name(index_of(shard.name)), shard, shard.stat().st_size)
    columns = (index.names.to_pylist(), index.offset_N.tolist(), index.size_N.tolist(), in_hex(index.md5_N16))
    for name, offset, size, md5 in zip(*columns, strict=True):
        yield name, Member(shard, offset, size, md5)


def refuse_damaged(name: str, member: Member, found: str) -> None:
    """Raises:
    DataError: a member's bytes are not those of the index.
    """
    if found != member.md5:
        raise DataError(
            f"{member.file} is damaged: its index states other content",
            got=f"{name}: md5 {found}",
            allowed=f"md5 {member.md5}",
            todo="restore the shard: `dvc checkout data/raw`, or `dvc pull`",
        )


def merge_small(folder: Path, size_mb: int) -> None:
    """Makes as few shards as possible of the small ones, if there are many.

    Raises:
        DataError: a shard is damaged.
    """
    small = [shard for shard in our_shards(folder) if shard.stat().st_size < SMALL * size_mb * 10**6]
    if len(small) <= MANY_SMALL:
        return
    with ShardWriter(folder, size_mb, next_number(folder)) as writer:
        for shard in small:
            for name, member in members_of(shard):
                with opening_member(member) as content:
                    refuse_damaged(name, member, writer.add(name, content, member.size))
    for shard in small:
        shard.unlink()
        shard.with_name(index_of(shard.name)).unlink()
    say(f"import: {len(small)} small shards are now {', '.join(shard.name for shard in writer.shards)}")
