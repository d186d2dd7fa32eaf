"""Projects of tiny images under git and DVC, and what a user types in them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CODE = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "flows",
    "tasks",
    "data/weights/README.md",
)

TINY = {
    "preprocess": {"val_fraction": 0.2, "test_fraction": 0.2},
    "features": {"backbone": "test_efficientnet", "weights": "random"},
    "head": {"strengths": 7},
    "finetune": {"mode": "off"},
    "evaluate": {"bootstrap": 500},
    "register": {"name": "graft"},
    "retrain": {"time_limit_minutes": 5.0, "retries": 0, "retry_seconds": 0.0},
}


def draw(path: Path, colour: int, number: int) -> None:
    """A noisy 32 x 32 picture in one of three colours; the same colour and number give the same bytes."""
    pixels = np.random.default_rng([colour, number]).integers(0, 90, (32, 32, 3))
    pixels[..., colour] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def draw_classes(folder: Path, each: int = 14) -> Path:
    for colour, name in enumerate(("red", "green", "blue")):
        for number in range(each):
            draw(folder / name / f"{number:03}.png", colour, number)
    return folder


@dataclass(frozen=True)
class Project:
    """A project's folder, and the commands that a user would type in it."""

    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "GRAFT_"))
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        return {**kept, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, **more}

    def call(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=self.root, env=self.environment(**more), capture_output=True, text=True, timeout=300
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)} gave {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def dvc(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "dvc", *words, check=check, **more)

    def graft(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "flows.cli", *words, check=check, **more)

    def graft_here(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """As `graft`, in this very process, which has loaded the libraries already: for what a command says and does.

        The code is this repository's, not the project's copy. How processes start and end, `graft` shows.
        """
        from flows import cli

        said, warned, code = io.StringIO(), io.StringIO(), None
        with (
            contextlib.chdir(self.root),
            mock.patch.dict(os.environ, self.environment(**more), clear=True),
            mock.patch.object(sys, "argv", ["graft", *words]),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(warned),
        ):
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        done = subprocess.CompletedProcess(words, code, said.getvalue(), warned.getvalue())
        if check and code:
            raise AssertionError(f"graft {' '.join(words)} gave {code}\n{done.stdout}\n{done.stderr}")
        return done

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return self.call("git", *identity, *words).stdout.strip()

    def repro(self, *words: str, **more: str) -> list[str]:
        """The stages that ran."""
        lines = self.dvc("repro", *words, **more).stdout.splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage '") and ".dvc" not in line]

    def start_repro(self, *words: str) -> subprocess.Popen[bytes]:
        """`dvc repro` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *words],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def recorders(self) -> Path:
        """Where each recorder at work has its desk; empty once the execution has been recorded to its end."""
        return self.root / ".graft" / "recorders"

    def json(self, place: str) -> Any:
        return json.loads((self.root / place).read_text(encoding="utf-8"))

    def lock(self) -> dict[str, str]:
        """Output -> hash, as in dvc.lock."""
        stages = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def set(self, section: str, **values: Any) -> None:
        file = self.root / "params.yaml"
        params = yaml.safe_load(file.read_text(encoding="utf-8"))
        params.setdefault(section, {}).update(values)
        file.write_text(dump(params), encoding="utf-8")

    def copy(self, target: Path) -> Project:
        shutil.copytree(self.root, target, symlinks=True)
        return Project(target)

    def mlflow(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root}/mlflow.db")

    def runs(self) -> list[Any]:
        """All MLflow runs, oldest first."""
        client = self.mlflow()
        experiment = client.get_experiment_by_name("graft")
        return list(reversed(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])))


@dataclass(frozen=True)
class Rerun(Project):
    """A finished project whose pipeline has run once more with `head.l2_max` changed, which is not committed.

    Attributes:
        ran: the stages that ran the second time.
        leaked: a run of somebody else's that MLFLOW_RUN_ID named meanwhile.
        deserted: the desk of a recorder that had been killed before.
    """

    ran: tuple[str, ...]
    leaked: str
    deserted: Path


def rerun_head(project: Project) -> Rerun:
    """Runs what follows from another parameter of the head, among what may lie about on a user's machine."""
    client = project.mlflow()
    leaked = client.create_run(client.get_experiment_by_name("graft").experiment_id).info.run_id
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    deserted = project.recorders() / "0123456789abcdef.json"
    deserted.write_text(json.dumps({"address": "nowhere", "key": "00", "pid": gone.pid}), encoding="utf-8")
    project.set("head", l2_max=0.5)
    ran = project.repro(MLFLOW_RUN_ID=leaked)
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    return Rerun(project.root, tuple(ran), leaked, deserted)


def dump(params: dict[str, Any]) -> str:
    """YAML with quoted words, so that `off` stays a word for YAML 1.1 and 1.2 alike."""
    return yaml.safe_dump(params, default_flow_style=False)


def make_project(root: Path, **sections: dict[str, Any]) -> Project:
    """The code of this repository with small parameters, under git, without images."""
    for name in CODE:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    (root / "data" / "pins.csv").write_text("seed,key,split\n", encoding="utf-8")
    params = {name: {**values, **sections.get(name, {})} for name, values in TINY.items()}
    (root / "params.yaml").write_text(dump(params), encoding="utf-8")
    project = Project(root)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "code")
    return project


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def ask(prefect_api: dict[str, str], question: Callable[[Any], Any]) -> Any:
    """An answer of the Prefect server's."""
    from prefect.client.orchestration import PrefectClient

    async def answer() -> Any:
        async with PrefectClient(prefect_api["PREFECT_API_URL"]) as client:
            return await question(client)

    return asyncio.run(answer())
