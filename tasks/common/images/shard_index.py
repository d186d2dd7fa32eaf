"""The index of a shard: the names of its members, their hashes, and where they begin in the tar.

It may come from anywhere, so each claim is checked before anything is opened by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..core.errors import DataError
from .limits import MB
from .shard_names import AGAIN

BLOCK = 512
"""Bytes of a tar's unit: each member begins with one that describes it, and its bytes begin at a multiple."""

SCHEMA = pa.schema([("name", pa.string()), ("md5", pa.binary(16)), ("offset", pa.int64()), ("size", pa.int64())])
"""An index has one row for each member, in the order of the offsets. `name` is the path below the folder."""

MOST = 1024 * MB
"""Bytes that an index may take in memory."""

LONGEST = 4096
"""Bytes of a name."""

_ASTRAY = r"(^|/)\.{0,2}(/|$)|\x00"
"""A name that is empty or absolute, or has an empty part, `.` or `..`."""


@dataclass(frozen=True)
class Index:
    """Of N members: `names` (an Arrow array of strings), `md5_N16`, and in bytes `offset_N` and `size_N`."""

    names: Any
    md5_N16: npt.NDArray[np.uint8]
    offset_N: npt.NDArray[np.int64]
    size_N: npt.NDArray[np.int64]

    def hashes(self) -> dict[str, str]:
        """Name -> md5, in the order of the offsets."""
        return dict(zip(self.names.to_pylist(), in_hex(self.md5_N16), strict=True))


def in_hex(md5_N16: npt.NDArray[np.uint8]) -> list[str]:
    text = md5_N16.tobytes().hex()
    return [text[at : at + 32] for at in range(0, len(text), 32)]


def read_index(file: Path, tar: Path, size: int | None) -> Index:
    """Args:
        tar: the shard that it describes, which need not be here.
        size: bytes of the shard; None if they are not known.

    Raises:
        DataError: it is no index, or describes another file than `tar`.
        OSError: it cannot be read.
    """
    damaged = partial(_damaged, file, tar)
    try:
        with file.open("rb") as opened:
            table = _table(opened, size, damaged)
    except (pa.ArrowException, EOFError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system; Arrow's own have no number
        raise damaged(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    index = Index(_names(table["name"], damaged), _md5s(table["md5"]), *map(_numbers, (table["offset"], table["size"])))
    _check_places(index, size, damaged)
    return index


def _damaged(file: Path, tar: Path, got: str, allowed: str = "") -> DataError:
    return DataError(
        f"{file} is not the index of {tar}, or one of both is damaged", got=got, allowed=allowed, todo=AGAIN
    )


_Damaged = Callable[..., DataError]


def _table(opened: BinaryIO, size: int | None, damaged: _Damaged) -> Any:
    """The four columns, without nulls; names as Arrow's dictionaries."""
    whole = pq.ParquetFile(opened, read_dictionary=["name"])
    found, meta = whole.schema_arrow, whole.metadata
    plain = {field.name: field.type.value_type if field.name == "name" else field.type for field in found}
    if len(found) != len(SCHEMA) or plain != {field.name: field.type for field in SCHEMA}:
        raise damaged(f"columns {', '.join(f'{field.name} ({field.type})' for field in found)}"[:300])
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    unpacked = sum(group.column(i).total_uncompressed_size for group in groups for i in range(len(SCHEMA)))
    if max(unpacked, 36 * meta.num_rows) > MOST:
        raise damaged(f"{meta.num_rows:,} rows, {unpacked / MB:,.0f} MB", f"{MOST // MB:,} MB in memory")
    if size is not None and meta.num_rows * BLOCK > size:
        raise damaged(f"{meta.num_rows:,} rows for {size:,} bytes")
    table = whole.read()
    table.validate(full=True)
    if any(column.null_count for column in table.columns):
        raise damaged("rows without a value")
    return table


def _numbers(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(column.to_numpy(), np.int64)


def _md5s(column: Any) -> npt.NDArray[np.uint8]:
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, 16)[chunk.offset :][: len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 16), np.uint8)


def _names(column: Any, damaged: _Damaged) -> Any:
    """Plain strings, if none is too long: one long name for many rows would take any amount of memory."""
    longest = max((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0)
    if longest > LONGEST or longest * len(column) > 16 * MOST:
        raise damaged(f"a name of {longest:,} bytes", f"{LONGEST:,} bytes")
    names = pa.concat_arrays([pa.array([], pa.string()), *(chunk.dictionary_decode() for chunk in column.chunks)])
    wrong = names.filter(pc.match_substring_regex(names, _ASTRAY))
    if len(wrong):
        raise damaged(f"the name {wrong[0].as_py()!r}", "paths below the folder, without `..`")
    return names


def _check_places(index: Index, size: int | None, damaged: _Damaged) -> None:
    """Whether the members lie in the tar, one after another, each with room for what describes it."""
    offset_N, size_N = index.offset_N, index.size_N
    end = 2**62 if size is None else size
    outside = (offset_N < BLOCK) | (size_N < 0) | (offset_N > end) | (size_N > end - np.clip(offset_N, 0, end))
    if outside.any():
        raise damaged(_place(index, outside), f"within its {end:,} bytes")
    astray = offset_N % BLOCK != 0
    astray[1:] |= offset_N[1:] - BLOCK < (offset_N + size_N)[:-1]
    if astray.any():
        raise damaged(_place(index, astray), "multiples of 512, in their order, behind the end of the one before")


def _place(index: Index, wrong: npt.NDArray[np.bool_]) -> str:
    at = int(np.argmax(wrong))
    return f"{index.names[at].as_py()}: {index.size_N[at]:,} bytes at {index.offset_N[at]:,}"
