"""Graft as users install it: a wheel, in an environment without this repository.

The environment shares the other packages with the one that runs the tests: to install those takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from projects import ROOT, TINY, Project, draw_classes, dump

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "flows", "tasks", "sample")
OWN_MODULES = ("tasks/__init__.py", "flows/__init__.py", "queue.py", "torch.py", "dvc.py")
USERS_OWN = 'raise ImportError("this module is the user\'s")\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without a network."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in BUILT_FROM:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(place, copy / name)
    shutil.copytree(ROOT / "src", copy / "src", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Installed(Project):
    """A project, and an environment that has the wheel and knows nothing of this repository.

    Attributes:
        environment_folder: the virtual environment.
    """

    environment_folder: Path

    @property
    def bin(self) -> Path:
        return self.environment_folder / "bin"

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        kept = {name: text for name, text in super().environment(**more).items() if name != "PYTHONPATH"}
        return {**kept, "PATH": path}

    def graft(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.call(str(self.bin / "graft"), *words, check=check, **more)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A project that `graft init` has made of a folder in which the user has packages `tasks` and `flows`, data in a
    folder `graft`, and modules with the names of others."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    pip("--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    root = tmp_path_factory.mktemp("home") / "project"
    for name in OWN_MODULES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(USERS_OWN, encoding="utf-8")
    draw_classes(root / "graft" / "pictures", each=14)
    project = Installed(root, folder)
    project.graft("init")
    return project


def test_the_wheel_has_the_code_the_templates_the_sample_and_the_types(names: set[str]) -> None:
    assert {"graft/__init__.py", "graft/py.typed", "graft/flows/cli/main.py", "graft/tasks/head/stage.py"} <= names
    assert {"graft/flows/project/template/pipeline.yaml", "graft/sample/fashion-mnist-2000.zip"} <= names


def test_every_module_of_the_repository_is_in_the_wheel_and_nothing_beside_them(names: set[str]) -> None:
    files = (file.relative_to(ROOT) for package in ("flows", "tasks") for file in (ROOT / package).rglob("*"))
    ours = {f"graft/{file.as_posix()}" for file in files if (ROOT / file).is_file() and "__pycache__" not in file.parts}
    packed = {name for name in names if name.startswith(("graft/flows/", "graft/tasks/"))}

    assert packed == ours
    assert {name.split("/")[0] for name in names} == {"graft", f"graft-{version('graft')}.dist-info"}


def test_the_wheel_has_its_entry_points_and_names_no_file_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        points = file.read(f"graft-{version('graft')}.dist-info/entry_points.txt").decode()
        text = b"\n".join(file.read(name) for name in file.namelist() if not name.endswith((".zip", ".py")))

    assert "graft = graft.flows.cli.main:main" in points
    assert "dvc = graft.flows.tracking.dataset:DvcDatasetSource" in points
    assert str(ROOT).encode() not in text


def test_what_runs_is_the_wheel(installed: Installed) -> None:
    program = "import graft.flows, graft.tasks; print(graft.__file__, graft.flows.__file__, graft.tasks.__file__)"

    found = installed.call(str(installed.bin / "python"), "-c", program).stdout.split()

    assert all(Path(file).is_relative_to(installed.environment_folder) for file in found), found
    assert installed.graft("--version").stdout == f"graft {version('graft')}\n"


def test_a_project_is_trained_without_this_repository(installed: Installed) -> None:
    """Among modules of the user's own, which nothing of Graft may import instead of its own or of a library's."""
    (installed.root / "params.yaml").write_text(dump(TINY), encoding="utf-8")
    installed.graft("import", "graft/pictures")

    done = installed.graft("repro")

    assert re.findall(r"^Running stage '(\w+)'", done.stdout, re.MULTILINE)[-1] == "register"
    assert "test accuracy" in installed.graft("summary").stdout
    assert installed.json("metrics/preprocess.json")["images"] == 42
    installed.git("add", "--all")
    installed.git("commit", "--quiet", "--message", "First model")
    assert installed.git("status", "--porcelain") == ""
    tracked = installed.git("ls-files", "--", "mlflow.db", ".graft", "models", "data/raw", "runs")
    assert tracked == "", "what DVC keeps, and what stays on the machine"
