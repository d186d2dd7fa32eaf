"""Rows of features, which may be read from the disk in slices."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Matrix(Protocol):
    """Rows by slices: an array, or a `Learnable`, which reads them from the disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


def spread(n: int, most: int) -> npt.NDArray[np.int64]:
    """`most` of n rows, evenly from the first to the last; all if there are no more."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
