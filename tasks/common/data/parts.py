"""Rows in several files, which are read as one array. N rows, D features, T rows of training images, V = views * T.

A file of all features of 10^8 images has 256 GB, and DVC would keep a whole new one for each image added. So above
`PART` rows there are parts, each a whole .npy file; within one, rows are in the order of the manifest. Images in shards
(`images/shards.py`) are in the order of the shards, and a part has whole shards as far as they fit: new images are new
shards, and so new parts, while the old ones stay as they are. Behind them, images in ordinary files, which do not say
when they were added, are in the order of the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks

PART = 131_072
"""Rows of a part at most; fewer rows are in a file without a number. With 1,280 features in half precision, 336 MB."""

Rows = npt.NDArray[np.int64]
PartOf = npt.NDArray[np.int32]
"""The number of the part that each row is in, (N,)."""


def parts_of(group_N: npt.NDArray[Any]) -> PartOf | None:
    """None for rows that need no parts.

    Args:
        group_N: of each row the place of its shard among all, and behind these one number for ordinary files. Groups
            that come last change no part but the last ones.
    """
    if len(group_N) <= PART:
        return None
    part_N, part, room = np.empty(len(group_N), np.int32), -1, 0
    order = np.argsort(group_N, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(group_N[order])) + 1):
        for piece in blocks(len(group), PART):
            size = piece.stop - piece.start
            if size > room:
                part, room = part + 1, PART
            part_N[group[piece]], room = part, room - size
    return part_N


def views_part(part_N: PartOf, train: Rows, views: int) -> PartOf:
    """Of the views, (V,): each is in the part of the same number as its image."""
    return np.tile(part_N[train], views)


def part_file(whole: Path, number: int) -> Path:
    """features.npy -> features-00003.npy"""
    return whole.with_name(f"{whole.stem}-{number:05}{whole.suffix}")


@dataclass(frozen=True)
class Layout:
    """Where rows are.

    Attributes:
        sizes: the rows of each part.
        place_N: of each row, among those of all parts one after the other; None: in their order.
    """

    sizes: tuple[int, ...]
    place_N: Rows | None = None

    @classmethod
    def of(cls, part_N: PartOf, parts: int) -> Layout:
        """Args:
        parts: their number; some may have no row.
        """
        sizes = tuple(np.bincount(part_N, minlength=parts).tolist())
        if (np.diff(part_N) >= 0).all():
            return cls(sizes)
        place_N = np.empty(len(part_N), np.int64)
        place_N[np.argsort(part_N, kind="stable")] = np.arange(len(part_N))
        return cls(sizes, place_N)

    @cached_property
    def starts(self) -> Rows:
        """The place of the first row of each part."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def where(self, rows: Rows) -> list[tuple[int, Rows, Rows]]:
        """(part, indices in `rows`, rows within the part) for each part that has some of them."""
        places = rows if self.place_N is None else self.place_N[rows]
        part = np.searchsorted(self.starts, places, side="right") - 1
        found = []
        for number in np.unique(part).tolist():
            mine = np.flatnonzero(part == number)
            found.append((number, mine, places[mine] - self.starts[number]))
        return found


@dataclass(frozen=True)
class Parts:
    """What of an array of rows Graft uses: `parts[rows]` for a slice, row numbers or a mask, and `parts[:, columns]`.

    Attributes:
        files: the arrays (.., D), memory-mapped.
        layout: of their rows.
    """

    files: tuple[npt.NDArray[Any], ...]
    layout: Layout

    @classmethod
    def load(cls, whole: Path, part_N: PartOf) -> Parts:
        """The parts of an array that would be the file `whole` if it were smaller."""
        count = len(list(whole.parent.glob(f"{whole.stem}-[0-9]*{whole.suffix}")))
        return cls(tuple(load_rows(part_file(whole, number)) for number in range(count)), Layout.of(part_N, count))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.files[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.files[0].dtype

    def __len__(self) -> int:
        return sum(self.layout.sizes)

    @overload
    def __getitem__(self, wanted: slice | npt.NDArray[Any] | Sequence[int], /) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, wanted: tuple[slice, slice], /) -> Parts: ...

    def __getitem__(self, wanted: Any, /) -> Any:
        if isinstance(wanted, tuple):
            return Parts(tuple(file[wanted[0], wanted[1]] for file in self.files), self.layout)
        if isinstance(wanted, slice):
            rows = np.arange(*wanted.indices(len(self)))
        else:
            rows = np.arange(len(self))[wanted] if np.asarray(wanted).dtype == np.bool_ else np.asarray(wanted)
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        for number, mine, within in self.layout.where(rows):
            found[mine] = self.files[number][within]
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


Stored = npt.NDArray[Any] | Parts
"""Rows on the disk."""


def load_rows(file: Path) -> npt.NDArray[Any]:
    """Of a .npy file, memory-mapped; a file without rows cannot be."""
    try:
        return np.load(file, mmap_mode="r")
    except ValueError:
        return np.load(file)
