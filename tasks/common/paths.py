"""Where everything lies in a project; the one place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import GraftError

STAGES = ("preprocess", "features", "head", "audit", "finetune", "evaluate", "register")
"""The stages' names in the order in which data flows."""


@dataclass(frozen=True)
class Paths:
    """Every path of a project, from its root (the folder of dvc.yaml)."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        if name not in _PLACES:
            raise AttributeError(name)
        return self.root / _PLACES[name]

    def metrics(self, stage: str) -> Path:
        return self.root / "metrics" / f"{stage}.json"

    def run(self, stage: str) -> Path:
        return self.root / "runs" / f"{stage}.json"

    def plots(self, stage: str) -> Path:
        return self.root / "plots" / stage

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


_PLACES = {
    "params": "params.yaml",
    "raw": "data/raw",
    "pins": "data/pins.csv",
    "manifest": "data/manifest",
    "features": "data/features",
    "weights": "data/weights",
    "head": "models/head",
    "audit": "data/audit",
    "finetune": "models/finetune",
    "package": "models/package",
    "report": "report",
    "state": ".graft",
    "cache": ".graft/cache",
    "tmp": ".graft/tmp",
    "checkpoints": ".graft/checkpoints",
}


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
