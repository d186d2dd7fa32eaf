"""Images that are decoded and resized once, and then read as they are: uint8 in one scratch file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..common.core.files import free_bytes
from ..common.images.decode import Pixels


class Decoded:
    """`decoded(i)` is image i, by `load` the first time; safe under threads. The file has no name, so that
    nothing is left of it however the process ends; most of it will be in the page cache.

    Args:
        load: gives image i as uint8 of any shape.
        folder: where the file goes.
        limit: bytes that it may take; images beyond are decoded each time.
    """

    def __init__(self, load: Callable[[int], Pixels], folder: Path, limit: int) -> None:
        self._load = load
        self._limit = min(limit, free_bytes(folder))
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (open as long as this object lives)
        self._places: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def __call__(self, i: int) -> Pixels:
        known = self._places.get(i)
        if known is not None:
            start, shape = known
            size = int(np.prod(shape))
            return np.frombuffer(os.pread(self._file.fileno(), size, start), np.uint8).reshape(shape)
        pixels = self._load(i)
        self._keep(i, pixels)
        return pixels

    def _keep(self, i: int, pixels: Pixels) -> None:
        with self._lock:
            start = self._end
            if start + pixels.nbytes > self._limit:
                return
            self._end += pixels.nbytes
        if os.pwrite(self._file.fileno(), pixels.tobytes(), start) == pixels.nbytes:
            self._places[i] = (start, pixels.shape)
