"""Where everything is in a project; no other module knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import GraftError

STAGES = ("preprocess", "features", "head", "audit", "finetune", "evaluate", "register")
"""The stages' names in the order in which data flows."""


class _Place:
    """An attribute of `Paths`: a path below the project's root."""

    def __init__(self, below: str) -> None:
        self._below = below

    def __get__(self, paths: Paths, owner: type[Paths]) -> Path:
        return paths.root / self._below


@dataclass(frozen=True)
class Paths:
    """Every path of a project, from its root (the folder of dvc.yaml)."""

    root: Path

    params = _Place("params.yaml")
    raw = _Place("data/raw")
    pins = _Place("data/pins.csv")
    labels = _Place("data/labels.csv")
    pool = _Place("data/pool")
    manifest = _Place("data/manifest")
    features = _Place("data/features")
    weights = _Place("data/weights")
    head = _Place("models/head")
    audit = _Place("data/audit")
    finetune = _Place("models/finetune")
    package = _Place("models/package")
    report = _Place("report")
    state = _Place(".graft")
    cache = _Place(".graft/cache")
    tmp = _Place(".graft/tmp")
    checkpoints = _Place(".graft/checkpoints")

    def metrics(self, stage: str) -> Path:
        return self.root / "metrics" / f"{stage}.json"

    def run(self, stage: str) -> Path:
        return self.root / "runs" / f"{stage}.json"

    def plots(self, stage: str) -> Path:
        return self.root / "plots" / stage

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` with dvc.yaml and params.yaml.

    Raises:
        GraftError: there is none.
    """
    for folder in [start.resolve(), *start.resolve().parents]:
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    raise GraftError(
        f"{start} is not in a Graft project",
        allowed="a folder with dvc.yaml and params.yaml, or one below it",
        todo="change into the project, or name it with --project",
    )
