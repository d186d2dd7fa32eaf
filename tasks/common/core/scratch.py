"""Arrays that are as large as the data: in memory while that is little, otherwise in files that nobody need remove."""

from __future__ import annotations

import os
import tempfile
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from .errors import GraftError

IN_MEMORY = 256 * 2**20
"""Bytes of all arrays in memory together; more go into files, if a folder for them is given. What is read from a file
stays in the system's page cache as long as nobody else needs that memory."""

_IN_USE: WeakValueDictionary[int, npt.NDArray[Any]] = WeakValueDictionary()
"""Arrays in memory that somebody still holds."""


def scratch_array(shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None) -> npt.NDArray[Any]:
    """An array to be filled; in an unnamed file below `folder` if it is large.

    Raises:
        GraftError: the disk has no room for it.
    """
    size = np.dtype(dtype).itemsize * prod(shape)
    if folder is None or not size or size + sum(array.nbytes for array in list(_IN_USE.values())) <= IN_MEMORY:
        array = np.empty(shape, dtype)
        _IN_USE[id(array)] = array
        return array
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name, and vanishes with the process
            if hasattr(os, "posix_fallocate"):  # or writing to the map would kill the process where the disk is full
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        raise GraftError(
            f"{folder} cannot hold what is computed from the features",
            got=error.strerror or error,
            allowed=f"{size / 2**30:.1f} GiB of free space",
            todo="make room on that disk, and run it again",
        ) from error
