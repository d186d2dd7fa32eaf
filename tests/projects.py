"""Projects of tiny images under git and DVC, and what a user types in them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from filelock import FileLock
from PIL import Image, ImageDraw

from graft.flows.runtime import claims
from graft.tasks.code import record_code

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "data/weights/README.md",
)

TINY = {
    "preprocess": {"val_fraction": 0.2, "test_fraction": 0.2},
    "features": {"backbone": "test_efficientnet", "weights": "random"},
    "head": {"task": "classification", "strengths": 7},
    "audit": {"folds": 3, "curve_seeds": 1},
    "finetune": {"mode": "off"},
    "evaluate": {"saliency": 0},
    "register": {"name": "graft"},
    "retrain": {"time_limit_minutes": 5.0, "retries": 0, "retry_seconds": 0.0},
    "gate": {"max_latency_ratio": 50.0},
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


def draw_squares(folder: Path, images: int = 30) -> Path:
    """Noisy pictures of 48 x 40 pixels with a bright square in two of three, their masks, and labels.csv: `square` has
    a mask, `good` has none."""
    rng, rows = np.random.default_rng(11), []
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for number in range(images):
        pixels, mask = rng.integers(40, 120, (40, 48, 3)), np.zeros((40, 48), np.uint8)
        if number % 3:
            top, left = rng.integers(2, 24, 2)
            mask[top : top + 12, left : left + 12] = 255
            pixels[mask > 0] += 110
            Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
        named = f"masks/{number:02}.png" if number % 3 else None
        rows.append({"path": f"{number:02}.png", "label": "square" if named else "good", "mask": named})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


SHAPES = {"disc": (220, 60, 50), "square": (60, 200, 70), "bar": (70, 90, 230)}


def draw_shapes(folder: Path, images: int) -> Path:
    """Noisy pictures on which each of three shapes is there or not, and labels.csv, which says so; of the first, none
    is."""
    rng, rows = np.random.default_rng(7), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        picture = Image.fromarray(rng.integers(90, 150, (48, 48, 3)).astype(np.uint8))
        there = [name for name in SHAPES if number and rng.random() < 0.5]
        for name in there:
            x, y = rng.integers(2, 30, 2).tolist()
            pen = ImageDraw.Draw(picture)
            if name == "disc":
                pen.ellipse((x, y, x + 15, y + 15), SHAPES[name])
            else:
                pen.rectangle((x, y, x + 13, y + (13 if name == "square" else 4)), SHAPES[name])
        picture.save(folder / f"{number:03}.png")
        rows.append({"path": f"{number:03}.png", "label": "|".join(there)})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def draw_turned(folder: Path, images: int) -> Path:
    """Noisy pictures of a bar that is turned by some angle, and labels.csv, which says by how many degrees."""
    rng, rows = np.random.default_rng(8), []
    folder.mkdir(parents=True, exist_ok=True)
    bar = Image.new("L", (48, 48))
    ImageDraw.Draw(bar).rectangle((20, 2, 28, 46), fill=255)
    for number in range(images):
        picture = Image.fromarray(rng.integers(0, 60, (48, 48, 3)).astype(np.uint8))
        angle = float(rng.uniform(0, 90))
        picture.paste((240, 240, 240), mask=bar.rotate(angle))
        picture.save(folder / f"{number:03}.png")
        rows.append({"path": f"{number:03}.png", "target": angle})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def draw_tile(path: Path, number: int, kind: str = "good", size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A noisy picture, with a bright scratch or a dark hole if its kind says so; returns the mask of the defect."""
    width, height = size
    rng = np.random.default_rng([("good", "hole", "scratch").index(kind), number])
    picture = Image.fromarray(rng.integers(100, 150, (height, width, 3)).astype(np.uint8))
    mask = Image.new("L", size)
    x, y = int(rng.integers(6, width - 18)), int(rng.integers(6, height - 18))
    for image, colour in ((picture, (255,) * 3 if kind == "scratch" else (0,) * 3), (mask, 255)):
        if kind == "scratch":
            ImageDraw.Draw(image).line((x, y, x + 12, y + 12), colour, width=3)
        elif kind == "hole":
            ImageDraw.Draw(image).ellipse((x, y, x + 9, y + 9), colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return mask


def draw_tiles(folder: Path, good: int = 48, test_good: int = 14, defects: int = 8) -> Path:
    """Tiles in the layout of MVTec AD: good ones to learn from; good ones, scratches and holes to test. Masks of all
    scratches and of half of the holes."""
    for number in range(good):
        draw_tile(folder / "train" / "good" / f"{number:03}.png", number)
    for number in range(test_good):
        draw_tile(folder / "test" / "good" / f"{number:03}.png", good + number)
    for kind in ("hole", "scratch"):
        for number in range(defects):
            mask = draw_tile(folder / "test" / kind / f"{number:03}.png", number, kind)
            if kind == "scratch" or number % 2:
                (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                mask.save(folder / "ground_truth" / kind / f"{number:03}_mask.png")
    return folder


@contextlib.contextmanager
def dvcs_messages() -> Iterator[None]:
    """DVC's messages go to the standard streams of this moment; afterwards DVC is as silent as it was."""
    from dvc.ui import ui

    handlers = {one for name in ("dvc", "dvc_objects", "dvc_data") for one in logging.getLogger(name).handlers}
    own = [one for one in handlers if isinstance(one, logging.StreamHandler)]
    before = [one.setStream(sys.stderr if one.level >= logging.WARNING else sys.stdout) for one in own]
    try:
        with mock.patch.object(ui, "_enabled", ui._enabled):
            yield
    finally:
        for one, stream in zip(own, before, strict=True):
            one.setStream(stream or one.stream)


@dataclass(frozen=True)
class Project:
    """A project's folder, and the commands that a user would type in it."""

    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "GRAFT_"))
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        kept |= {"PYTHONPATH": str(self._own_code.parent)} if self._own_code.is_dir() else {}
        # `git status` would lock a project that another of pytest's processes may be copying.
        return {**kept, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0", **more}

    @property
    def _own_code(self) -> Path:
        return self.root.with_name(f"{self.root.name}-code") / "graft"

    def own_code(self) -> Path:
        """The folder of a copy of Graft's code, to be changed; from now on, processes in this project run that copy."""
        if not self._own_code.is_dir():
            shutil.copytree(ROOT / "src" / "graft", self._own_code, ignore=shutil.ignore_patterns("__pycache__"))
        return self._own_code

    def call(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=self.root, env=self.environment(**more), capture_output=True, text=True, timeout=300
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)} gave {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def dvc(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """DVC; in a process of its own if it starts stages, which end with it, otherwise in this one."""
        if words[0] == "repro":
            self._record_code()
        if words[0] in ("repro", "exp"):
            return self.call(sys.executable, "-m", "dvc", *words, check=check, **more)
        from dvc.cli import main

        return self._here(main, "dvc", *words, check=check, DVC_TEST="1", **more)  # else it puts back sys.stdout

    def _record_code(self) -> None:
        """What `graft repro` does before it calls DVC, where the code may have changed."""
        if self._own_code.is_dir():
            program = "import pathlib; from graft.tasks.code import record_code; record_code(pathlib.Path.cwd())"
            self.call(sys.executable, "-c", program)

    def graft(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "graft.flows.cli.main", *words, check=check, **more)

    def graft_here(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """As `graft`, in this very process, which has loaded the libraries already: for what a command says and does.

        The code is this repository's, not the project's copy. How processes start and end, `graft` shows.
        """
        from graft.flows.cli import main

        return self._here(lambda words: main.main(), "graft", *words, check=check, **more)

    def _here(
        self, program: Callable[[list[str]], int | None], *words: str, check: bool, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """What a command with its words says and does in this process."""
        import dvc.ui  # noqa: F401  (the first import keeps the streams of its moment)

        with (
            TemporaryFile("w+", encoding="utf-8") as said,  # files: processes that it starts may write to them too
            TemporaryFile("w+", encoding="utf-8") as warned,
            contextlib.chdir(self.root),
            mock.patch.dict(os.environ, self.environment(**more), clear=True),
            mock.patch.object(sys, "argv", [*words]),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(warned),
            dvcs_messages(),
        ):
            try:
                code = program([*words[1:]]) or 0
            except SystemExit as end:
                code = int(end.code or 0)
            for file in (said, warned):
                file.seek(0)
            done = subprocess.CompletedProcess(words, code, said.read(), warned.read())
        if check and code:
            raise AssertionError(f"{' '.join(words)} gave {code}\n{done.stdout}\n{done.stderr}")
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
        self._record_code()
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
        """The project elsewhere. MLflow's files stay where its database says that they are."""
        shutil.copytree(self.root, target, symlinks=True, ignore=shutil.ignore_patterns("mlartifacts"))
        return Project(target)

    def pushed_and_cloned(self, folder: Path) -> Project:
        """A clone, as another machine has it that can pull from the DVC remote: both in `folder`."""
        self.dvc("remote", "add", "--default", "store", str(folder / "store"))
        self.git("commit", "--all", "--quiet", "--message", "remote")
        self.dvc("push")
        self.git("clone", "--quiet", str(self.root), str(folder / "clone"))
        return Project(folder / "clone")

    def loaded_by(self, command: str) -> set[str]:
        """The modules that `graft` has loaded when it ends, in a process of its own."""
        program = (
            "import atexit, sys; from graft.flows.cli import main;"
            "atexit.register(lambda: print(*{name for name in sys.modules if '.' not in name})); main.main()"
        )
        found = set(self.call(sys.executable, "-c", program, command).stdout.splitlines()[-1].split())
        assert "graft" in found, "the last line is not the list of modules"
        return found

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

    ran: list[str]
    leaked: str
    deserted: str


def run_all(root: Path) -> None:
    """A project of 42 images whose pipeline runs to its end, committed."""
    project = make_project(root)
    draw_classes(root / "data" / "raw")
    project.dvc("add", "data/raw")
    project.repro()
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "first run")


def run_inspector(root: Path) -> None:
    """A project that detects anomalies, of 62 good tiles and 16 with defects, whose pipeline runs to its end,
    committed."""
    project = make_project(root, head={"task": "anomaly"})
    draw_tiles(root / "data" / "raw")
    project.dvc("add", "data/raw")
    project.repro()
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "first run")


def rerun_head(project: Project) -> dict[str, Any]:
    """Runs what follows from another parameter of the head, among what may lie about on a user's machine."""
    client = project.mlflow()
    leaked = client.create_run(client.get_experiment_by_name("graft").experiment_id).info.run_id
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    deserted = project.recorders() / "0123456789abcdef.json"
    claims.claim(deserted, psutil.Process(gone.pid), address="nowhere", key="00")
    gone.communicate()
    project.set("head", l2_max=0.5)
    ran = project.repro(MLFLOW_RUN_ID=leaked)
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    return {"ran": ran, "leaked": leaked, "deserted": str(deserted)}


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], dict[str, Any] | None]
) -> tuple[Path, dict[str, Any]]:
    """A folder that the first of pytest's processes makes and the others find, and what `make` told of it."""
    temporary = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        temporary = temporary.parent  # each process has a folder of its own in it
    folder, told = temporary / name, temporary / f"{name}.json"
    with FileLock(temporary / f"{name}.lock"):
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)
            told.write_text(json.dumps(make(folder) or {}), encoding="utf-8")
    return folder, json.loads(told.read_text(encoding="utf-8"))


def dump(params: dict[str, Any]) -> str:
    """YAML with quoted words, so that `off` stays a word for YAML 1.1 and 1.2 alike."""
    return yaml.safe_dump(params, default_flow_style=False)


def make_project(root: Path, **sections: dict[str, Any]) -> Project:
    """A project with small parameters, under git, without images."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    (root / "data" / "pins.csv").write_text("seed,key,split\n", encoding="utf-8")
    (root / "data" / "labels.csv").write_text("image_id,label,who,when,why,replaced\n", encoding="utf-8")
    params = {name: {**values, **sections.get(name, {})} for name, values in TINY.items()}
    (root / "params.yaml").write_text(dump(params), encoding="utf-8")
    project = Project(root)
    record_code(root)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "project")
    return project


def made_repository(project: Project, folder: Path) -> Project:
    """Gives a project a remote of git's, `remote.git`, and one of DVC's, `store`, in a folder; all is pushed."""
    project.call("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(folder / "remote.git"))
    project.git("remote", "add", "origin", str(folder / "remote.git"))
    (folder / "store").mkdir()
    project.dvc("remote", "add", "--default", "store", str(folder / "store"))
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "where others find it")
    project.git("push", "--quiet", "origin", "main")
    if (project.root / "data" / "raw.dvc").is_file():
        project.dvc("push", "--quiet")
    return project


HOLDER = """
import sys
from dvc.lock import make_lock
with make_lock(sys.argv[1] + "/.dvc/tmp/lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(root: Path) -> subprocess.Popen[str]:
    """A process that holds DVC's lock of a project, as a DVC command does, until `release`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `condition` gives as soon as it gives anything; most of the time is left to what is waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        asked = time.monotonic()
        found = condition()
        if found:
            return found
        time.sleep(min(max(0.05, 4 * (time.monotonic() - asked)), 0.25))
    raise AssertionError("it did not happen in time")


def ask(prefect_api: dict[str, str], question: Callable[[Any], Any]) -> Any:
    """An answer of the Prefect server's."""
    from prefect.client.orchestration import PrefectClient

    async def answer() -> Any:
        login = prefect_api.get("PREFECT_API_AUTH_STRING")
        async with PrefectClient(prefect_api["PREFECT_API_URL"], auth_string=login) as client:
            return await question(client)

    return asyncio.run(answer())


def copy_prefect_database(prefect_api: dict[str, str], project: Project) -> None:
    """Prefect's database for a server of the project's own, which takes seconds to make."""
    folder = project.root / ".prefect"
    folder.mkdir()
    with (
        contextlib.closing(sqlite3.connect(Path(prefect_api["PREFECT_HOME"]) / "prefect.db")) as made,
        contextlib.closing(sqlite3.connect(folder / "prefect.db")) as copy,
    ):
        made.backup(copy)
