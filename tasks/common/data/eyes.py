"""The eyes of a feature set: each a backbone at one size, with its columns of the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.files import json_digest

Fingerprint = dict[str, Any]


@dataclass(frozen=True)
class Eye:
    """Attributes:
    fingerprint: what computed the features; see `features.extractor`.
    columns: [start, stop) in the features side by side.
    """

    fingerprint: Fingerprint
    columns: slice


def join(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """The fingerprint of features side by side: `eyes`, each with its `columns`, and `digest`, the hash of all. Of one
    it is its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    eyes, start = [], 0
    for one in fingerprints:
        eyes.append({**one, "columns": [start, start + one["dimension"]]})
        start += one["dimension"]
    return {"eyes": eyes, "digest": json_digest([one["digest"] for one in fingerprints])}


def eyes_of(fingerprint: Fingerprint, dimension: int) -> tuple[Eye, ...]:
    """The eyes of a feature set of this dimension, D."""
    return tuple(Eye(one, slice(*one.get("columns", (0, dimension)))) for one in each(fingerprint))


def each(fingerprint: Fingerprint) -> list[Fingerprint]:
    """The single fingerprints."""
    found: list[Fingerprint] = fingerprint.get("eyes", [fingerprint])
    return found


def backbones(fingerprint: Fingerprint) -> str:
    """The names of the backbones, with the sizes if a backbone has several."""
    eyes = each(fingerprint)
    names = [eye["backbone"] for eye in eyes]
    if len(set(names)) < len(names):
        names = [f"{name} at {size_of(eye)}" for name, eye in zip(names, eyes, strict=True)]
    return " + ".join(names)


def size_of(eye: Fingerprint) -> str:
    """Of the input: `height x width`, in pixels."""
    return f"{eye['transform']['height']} x {eye['transform']['width']}"
