"""How often models have been judged on the same test images: each choice among models makes the metric of the chosen
one more optimistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

SAMPLE = 32
"""Test images that an entry of the ledger names. Keys are hashes, so the smallest ones are a random sample, and two
tests with the same images have the same sample."""

DIGITS = 8
"""Of a key, in an entry: enough to tell a million images apart."""

MOST = 0.5
"""A test counts as the same if at least this share of today's test images was in it."""


class Judged(Protocol):
    """What an entry of the ledger says about the test of a version, see `ledger.Entry`."""

    @property
    def version(self) -> str: ...

    @property
    def test_images(self) -> int: ...

    @property
    def test_sample(self) -> list[str]: ...


@dataclass(frozen=True)
class Tested:
    """The test images that a model was judged on.

    Attributes:
        images: their number.
        sample: the first digits of the smallest keys among them.
    """

    images: int = 0
    sample: list[str] = field(default_factory=list)


def sampled(keys: Sequence[str]) -> Tested:
    """Args:
    keys: hexadecimal, of the test images.
    """
    return Tested(len(set(keys)), sorted({key[:DIGITS] for key in keys})[:SAMPLE])


def earlier_looks(kept: Sequence[Judged], keys: Sequence[str], version: str) -> int:
    """The number of other versions that were judged on most of these test images."""
    known, images = {key[:DIGITS] for key in keys}, len(set(keys))
    return len({
        entry.version
        for entry in kept
        if entry.version != version and entry.test_sample and _share(entry, known) * entry.test_images >= MOST * images
    })  # fmt: skip


def _share(entry: Judged, known: set[str]) -> float:
    """Of the entry's test images, those that are still in the test."""
    return sum(key in known for key in entry.test_sample) / len(entry.test_sample)
