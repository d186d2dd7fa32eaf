"""Shards for tests: a tar and its index, from files or from bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from graft.tasks.common.images.shard_index import SCHEMA

Row = tuple[str, bytes, int, int]


def write_shard(folder: Path, members: Mapping[str, bytes], name: str = "shard-000000") -> Path:
    """The tar; its index lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / f"{name}.tar"
    rows: list[Row] = []
    with tarfile.open(tar, "w") as opened:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o644
            opened.addfile(info, io.BytesIO(content))
            end = -(-opened.offset // 512) * 512
            begin = end - -(-len(content) // 512) * 512
            rows.append((member, hashlib.md5(content, usedforsecurity=False).digest(), begin, len(content)))
    write_index(tar, rows)
    return tar


def write_index(tar: Path, rows: Iterable[Row], schema: pa.Schema = SCHEMA) -> None:
    columns = list(zip(*rows)) or [()] * len(schema)
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, schema)], schema=schema)
    pq.write_table(table, tar.with_name(f"{tar.stem}.index.parquet"), compression="zstd")


def shard_files(folder: Path, names: Iterable[str], name: str = "shard-000000") -> Path:
    """Files of a folder, moved into a shard."""
    names = list(names)
    tar = write_shard(folder, {one: (folder / one).read_bytes() for one in names}, name)
    for one in names:
        (folder / one).unlink()
    return tar
