"""Work through many rows a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 4096
"""Rows per block, unless the caller knows better."""


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """0 ... n in slices of `size` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
