"""Rows of features that are read where they are needed."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt


class Matrix(Protocol):
    """Rows by slices: an array, or `pack.Learnable`, which reads them from the disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...
