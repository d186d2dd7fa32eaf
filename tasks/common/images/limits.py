"""Bounds for every image that is decoded: pixels, proportions, seconds, and memory of all threads and processes."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

MB = 2**20

SCALED_FROM = 100_000_000
"""JPEGs with more pixels are decoded at a half, a quarter or an eighth of their sides, which needs no more memory than
a smaller picture. It is a constant, so that the features of a file never depend on a parameter."""


@dataclass(frozen=True)
class Limits:
    """What one image may take; `PreprocessParams` explains each and has the same defaults."""

    max_pixels: int = 100_000_000
    max_aspect_ratio: float = 100.0
    max_seconds: float = 6.0
    max_memory_mb: int = 768

    def refusal(self, width: int, height: int) -> str:
        """Why an image of this size is refused; empty if it is not."""
        if width * height > self.max_pixels:
            return (
                f"too large: {width:,} x {height:,} px are {width * height / 1e6:,.0f} million, "
                f"`preprocess.max_pixels` allows {self.max_pixels / 1e6:,g} million"
            )
        if max(width, height) > self.max_aspect_ratio * max(1, min(width, height)):
            return (
                f"too elongated: {width:,} x {height:,} px, "
                f"`preprocess.max_aspect_ratio` allows {self.max_aspect_ratio:g} to 1"
            )
        return ""


class Budget:
    """Bytes that threads share: an image waits until its bytes are free, or until it is the only one.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._freed = threading.Condition()

    @contextmanager
    def claim(self, size: int) -> Iterator[None]:
        """Holds `size` bytes. Not to be nested: two threads could wait for each other."""
        with self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._freed:
                self._used -= size
                self._freed.notify_all()


DECODING = Budget(768 * MB)
"""Of all images that this process and those of `sandbox` are decoding or cropping."""

LARGE = 64 * MB
"""Bytes from which files are read one at a time, freed memory is given back before an image is decoded, and a process
of `sandbox` ends after its image."""

LARGE_FILE = threading.Lock()
"""Held by the thread whose large file is in memory. It comes before a claim of `DECODING`, never within one."""


def give_back() -> None:
    """Gives freed memory back to the system: the C library would keep a large image's for each thread."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; other C libraries have none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
