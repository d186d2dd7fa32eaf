"""Lists of names in sentences."""

from __future__ import annotations

from collections.abc import Iterable

NAMED = 10
"""How many names a sentence has."""


def listed(names: Iterable[object]) -> str:
    """The first names, and how many more there are."""
    told = [str(name) for name in names]
    more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more
