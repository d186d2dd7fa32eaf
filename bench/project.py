"""Graft as a black box: a project folder like a user's, its stages started as a user's are, timed from outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .processes import ROOT, environment, timed

CODE = (".dvc", ".dvcignore", ".gitignore", "bench", "data", "dvc.yaml", "graft.lock", "params.yaml")


@dataclass(frozen=True)
class Project:
    """A project's folder and what is done in it."""

    root: Path

    @classmethod
    def create(cls, root: Path, features: dict[str, Any]) -> Project:
        """The code of this checkout under git in a fresh folder, with `features` over its parameters."""
        shutil.rmtree(root, ignore_errors=True)
        for name in _code():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
        params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        params["features"] |= features
        (root / "params.yaml").write_text(yaml.safe_dump(params, default_flow_style=False), encoding="utf-8")
        project = cls(root)
        project.git("init", "--quiet", "--initial-branch", "main")
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", "code")
        return project

    def git(self, *words: str) -> None:
        timed(["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", *words], self.root)

    def add(self, photos: Path, names: Iterable[str]) -> None:
        """Copies files to data/raw; DVC does not know them yet."""
        for name in names:
            target = self.root / "data" / "raw" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photos / name, target)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.root / "data" / "raw" / name).unlink()

    def dvc_add(self) -> float:
        """Seconds of `dvc add data/raw`."""
        return timed([sys.executable, "-m", "dvc", "add", "--quiet", "data/raw"], self.root)

    def stage(self, name: str) -> dict[str, Any]:
        """Runs a stage as a process of its own.

        Returns:
            `whole_seconds` of the process, and the stage's own `metrics`.
        """
        seconds = timed([sys.executable, "-m", "graft.flows.stage", name], self.root)
        self.settle()
        return {"whole_seconds": round(seconds, 3), "metrics": self.metrics(name)}

    def repro(self, *words: str) -> dict[str, Any]:
        """`dvc repro WORDS features`, in which the stages share one start of MLflow, as they do for a user.

        Returns:
            `whole_seconds` of the command, and the metrics of both stages.
        """
        seconds = timed([sys.executable, "-m", "dvc", "repro", *words, "features"], self.root)
        self.settle()
        metrics = {name: self.metrics(name) for name in ("preprocess", "features")}
        return {"whole_seconds": round(seconds, 3), "stages": metrics}

    def settle(self) -> None:
        """Waits until the process that records in MLflow has ended, so that it disturbs nobody after it."""
        desks = self.root / ".graft" / "recorders"
        deadline = time.monotonic() + 60
        while desks.is_dir() and any(desks.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)

    def metrics(self, stage: str) -> dict[str, Any]:
        return json.loads((self.root / "metrics" / f"{stage}.json").read_text(encoding="utf-8"))

    def forget_features(self) -> None:
        """Empties the feature cache; the converted and compiled graph stays."""
        shutil.rmtree(self.root / ".graft" / "cache" / "features", ignore_errors=True)
        shutil.rmtree(self.root / "data" / "features", ignore_errors=True)


def _code() -> list[str]:
    """Files of this checkout that belong to a project, those not yet committed included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CODE],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return sorted({name for name in listed if (ROOT / name).is_file() and not name.endswith(".dvc")})
