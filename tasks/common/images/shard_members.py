"""The images in the shards of a folder, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .shard_index import Index, in_hex
from .shard_names import Member, index_of, refuse_twice


class Shards:
    """The members of all shards of a folder, sorted by name. An image takes 40 bytes and those of its name."""

    def __init__(self, folder: Path, tars: list[str], indexes: list[Index]) -> None:
        """Args:
            tars: names of the files.
            indexes: of each.

        Raises:
            DataError: a name is in two shards, or twice in one.
        """
        names = [index.names for index in indexes]
        large = sum(part.nbytes for part in names) > 2**31 - 1
        joined = pa.concat_arrays([part.cast(pa.large_string() if large else pa.string()) for part in names])
        order_N = pc.sort_indices(joined).to_numpy()
        self._tars, self._files = tars, [folder / tar for tar in tars]
        sorted_names = joined.take(pa.array(order_N))
        same = pc.equal(sorted_names[1:], sorted_names[:-1]) if len(joined) > 1 else pa.array([], pa.bool_())
        refuse_twice(sorted_names[1:].filter(same).to_pylist() if len(joined) > 1 else [], folder)
        self._md5_N16 = np.concatenate([index.md5_N16 for index in indexes])[order_N]
        self._offset_N = np.concatenate([index.offset_N for index in indexes])[order_N]
        self._size_N = np.concatenate([index.size_N for index in indexes])[order_N]
        shard_N = np.repeat(np.arange(len(tars), dtype=np.int32), [len(index.offset_N) for index in indexes])
        self._shard_N: npt.NDArray[np.int32] = shard_N[order_N]
        _, ends, text = sorted_names.buffers()
        self._text = text.to_pybytes() if text else b""  # bytes and a memoryview are searched faster than Arrow's
        self._ends = memoryview(ends or bytes(8)).cast("B").cast("q" if large else "i")
        self._names = pa.Array.from_buffers(sorted_names.type, len(joined), [None, ends, pa.py_buffer(self._text)])

    def __len__(self) -> int:
        return len(self._names)

    @property
    def files(self) -> frozenset[str]:
        """The names of the shards and of their indexes, which are no images."""
        return frozenset(name for tar in self._tars for name in (tar, index_of(tar)))

    def names(self, below: str = "") -> list[str]:
        """Sorted by their bytes; those that begin with `below`, which is empty or ends with a slash."""
        first = self._first(below.encode())
        last = self._first(below[:-1].encode() + b"0") if below else len(self)  # the character after a slash
        names: list[str] = self._names[first:last].to_pylist()
        return names

    def names_in(self, tar: str) -> list[str]:
        """The members of one shard, sorted."""
        names: list[str] = self._names.take(np.flatnonzero(self._shard_N == self._tars.index(tar))).to_pylist()
        return names

    def first_and_last(self) -> list[str]:
        """Of each shard."""
        order_N = np.lexsort((self._offset_N, self._shard_N))
        starts = np.flatnonzero(np.diff(self._shard_N[order_N], prepend=-1))
        rows = order_N[np.unique([*starts, *(starts[1:] - 1), len(self) - 1])] if len(self) else order_N
        names: list[str] = self._names.take(rows).to_pylist()
        return names

    def hashes(self) -> dict[str, str]:
        """Name -> md5."""
        return dict(zip(self.names(), in_hex(self._md5_N16), strict=True))

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,), the place of each name's shard among all shards; their number for a name that no shard has."""
        place_N = pc.index_in(pa.array(names, self._names.type), self._names).fill_null(-1).to_numpy()
        return np.where(place_N < 0, len(self._tars), self._shard_N[place_N])

    def find(self, name: str) -> Member | None:
        sought = os.fsencode(name)
        at = self._first(sought)
        if at == len(self) or self._text[self._ends[at] : self._ends[at + 1]] != sought:
            return None
        file = self._files[self._shard_N[at]]
        return Member(file, int(self._offset_N[at]), int(self._size_N[at]), self._md5_N16[at].tobytes().hex())

    def _first(self, sought: bytes) -> int:
        """The place of the first name that does not come before."""
        text, ends, low, high = self._text, self._ends, 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if text[ends[middle] : ends[middle + 1]] < sought:
                low = middle + 1
            else:
                high = middle
        return low
