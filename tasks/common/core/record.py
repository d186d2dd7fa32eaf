"""What a stage hands over for the record: the stage says what is worth keeping, `flows/` decides where it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import GraftError


@dataclass(frozen=True)
class DatasetRecord:
    """The images that a run used: `name`, and a profile (counts by class and split)."""

    name: str
    profile: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One stage's result beyond its files.

    Attributes:
        metrics: numbers, nested by topic; written to metrics/<stage>.json with `seconds` added.
        facts: what was decided rather than measured (a hash, a choice); recorded as tags.
        curves: name -> [(step, value), ...], for metrics that change over time.
        files: small files to keep with the run.
        dataset: the images themselves, if the stage read them.
        failure: why the run must stop after all of this has been recorded.
    """

    metrics: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    dataset: DatasetRecord | None = None
    failure: GraftError | None = None
