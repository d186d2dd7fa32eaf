"""`graft rebuild`: a version is rebuilt from its commit and data alone, or the reason is named why it cannot be."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from packaging.utils import canonicalize_name
from projects import ROOT
from safetensors.numpy import load_file, save_file

from graft.flows.lineage import environment, package_diff, provenance, rebuild
from graft.flows.lineage.executions import Records
from graft.flows.lineage.provenance import recipe_of
from graft.flows.runtime import claims
from graft.flows.tracking.tracker import PACKAGES, Tracker
from graft.flows.versioning import dvc, hashes
from graft.tasks.code import code_of, tree_hash
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json, write_json

if TYPE_CHECKING:
    from projects import Project, Rerun


def cached(project: Project, digest: str) -> Path:
    return project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def tag(project: Project, commit: str, number: str = "1") -> None:
    project.mlflow().set_model_version_tag("graft", number, "git.result", commit)


@pytest.fixture
def other_code_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade that changed the stage `head`."""
    changed = {"tasks/head": f"{0:032}.dir"}
    monkeypatch.setattr(provenance, "code_of", lambda stage: code_of(stage) | (changed if stage == "head" else {}))


def commit_own_code(project: Project, head: str = "") -> None:
    """The project becomes one like this repository, which holds its own code.

    Args:
        head: a line to put into the code of the stage.
    """
    for name in ("flows", "tasks", "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, project.root / name, symlinks=True, ignore=ignored)
    with (project.root / "tasks" / "head" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(head)
    with (project.root / "src" / "graft" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write('\nopen("imported", "w").close()\n')
    project.git("add", "flows", "tasks", "src")
    project.git("commit", "--quiet", "--message", "own code")
    tag(project, project.git("rev-parse", "HEAD"))


def test_a_version_is_rebuilt_with_equal_metrics_and_leaves_no_trace(project: Project, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.dvc("push")
    project.git("commit", "--all", "--quiet", "--message", "remote")
    cached(project, dvc.raw_hash(project.root)).unlink()
    runs, status = len(project.runs()), project.git("status", "--porcelain")

    told = json.loads(project.graft_here("rebuild", "graft@champion", "--json").stdout)

    assert told["equal"]
    assert told["metrics"]["accuracy"]["then"] == project.json("metrics/evaluate.json")["accuracy"]
    assert all(file["identical"] for file in told["files"].values())
    assert all(told["outputs"].values())
    assert (len(project.runs()), project.git("status", "--porcelain")) == (runs, status)
    assert len(project.mlflow().search_model_versions("name = 'graft'")) == 1
    assert len(project.git("worktree", "list").splitlines()) == 1
    assert list((project.root / ".graft" / "rebuild").iterdir()) == []


def test_the_worktree_of_a_rebuild_that_was_killed_is_removed_and_others_are_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for name in ("kept", "killed", "at work"):
        (tmp_path / name).mkdir()
    claims.claim(tmp_path / f"killed{rebuild.OWNER}", psutil.Process(gone.pid))
    claims.claim(tmp_path / f"at work{rebuild.OWNER}")
    gone.kill()
    gone.wait()

    rebuild._remove_abandoned(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["at work", f"at work{rebuild.OWNER}", "kept"]


@pytest.mark.usefixtures("other_code_installed")
def test_parameters_come_from_the_run_code_from_the_commit_and_other_metrics_are_reported(
    rerun: Rerun, tmp_path: Path
) -> None:
    project = rerun.copy(tmp_path / "project")
    commit_own_code(project)
    tag(project, project.git("rev-parse", "HEAD"), "2")
    project.mlflow().log_metric(project.json("runs/evaluate.json")["run_id"], "log_loss", 9.0)

    done = project.graft_here("rebuild", "2", "--keep", "--json", check=False)

    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert not told["equal"]
    assert told["metrics"]["log_loss"]["then"] == 9.0
    assert told["metrics"]["accuracy"]["difference"] == 0.0
    assert "head.l2_max" in told["notes"][0]
    assert told["files"]["head.safetensors"]["identical"]
    assert (Path(told["worktree"]) / "models" / "package").is_dir()
    assert (Path(told["worktree"]) / "imported").is_file(), "the code is not that of the commit"


@pytest.mark.usefixtures("other_code_installed")
def test_code_that_is_not_installed_is_refused_by_name(project: Project) -> None:
    done = project.graft_here("rebuild", "1", check=False)

    assert done.returncode == 2
    assert "is not installed here" in done.stderr
    assert "tasks/head" in done.stderr
    assert f"install Graft {version('graft')}, if that is its code" in done.stderr


@pytest.mark.usefixtures("other_code_installed")
def test_code_that_nobody_committed_is_refused_by_name(project: Project) -> None:
    commit_own_code(project, head="# never ran\n")

    done = project.graft_here("rebuild", "1", check=False)

    assert done.returncode == 2
    assert "never committed" in done.stderr
    assert "tasks/head" in done.stderr


def test_a_commit_that_is_not_in_the_repository_is_refused(project: Project) -> None:
    tag(project, "1234567890" * 4)

    with pytest.raises(GraftError, match="not in this repository"):
        rebuild.rebuild(project.root, "1")


def test_images_that_are_neither_in_cache_nor_remote_are_refused(project: Project) -> None:
    raw = dvc.raw_hash(project.root)
    cached(project, raw).unlink()

    with pytest.raises(GraftError, match="neither in DVC's cache") as refusal:
        rebuild.rebuild(project.root, "1")

    assert raw in str(refusal.value)
    assert len(project.git("worktree", "list").splitlines()) == 1


def test_no_hook_runs_in_the_worktree_of_a_rebuild(project: Project, tmp_path: Path) -> None:
    hook = project.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n", encoding="utf-8")
    hook.chmod(0o755)
    with rebuild._worktree(project.root, "graft-1", project.git("rev-parse", "HEAD"), False) as place:
        assert (place / "dvc.yaml").is_file()
    assert not (tmp_path / "ran").exists()
    project.git("checkout", "--quiet", "--detach")
    assert (tmp_path / "ran").exists(), "your own git runs it"


def test_pins_are_looked_for_in_all_commits(project: Project) -> None:
    pins = project.root / "data" / "pins.csv"
    wanted = hashlib.md5(pins.read_bytes(), usedforsecurity=False).hexdigest()
    recipe = recipe_of(Records(project.root), Records(project.root).named("1"))  # type: ignore[arg-type]
    assert wanted in recipe.pins
    pins.write_text("seed,key,split\n0,pixels:none,test\n", encoding="utf-8")
    project.git("commit", "--all", "--quiet", "--message", "other pins")

    rebuild._restore_pins(project.root, pins, recipe)

    assert hashlib.md5(pins.read_bytes(), usedforsecurity=False).hexdigest() in recipe.pins


@pytest.mark.parametrize(
    "number", ["1.0 --index-url=http://evil.example.org", "@ http://evil.example.org/x.whl", "*", ""]
)
def test_only_versions_reach_pip(number: str) -> None:
    with pytest.raises(GraftError, match="the version of torch that MLflow recorded is not valid"):
        environment.installable({"torch": (number, "2.0")})


def test_only_known_packages_reach_pip_and_the_others_are_named() -> None:
    differing = {
        "--index-url": ("http://evil.example.org", ""),
        "evil-package": ("1.0", ""),
        "python": ("3.9.1", "3.11.2"),
        "safetensors": ("0.4.5", "0.5.0"),
        "torch": ("2.9.0+cpu", "2.10.0"),
    }
    assert environment.installable(differing) == {"safetensors": "0.4.5", "torch": "2.9.0+cpu"}
    assert list(environment.notes(differing)) == [
        "Python 3.9.1 cannot be installed; this is 3.11.2",
        "not installed, because these packages are unknown here: --index-url, evil-package",
    ]


def test_another_environment_than_the_two_is_refused(finished: Project) -> None:
    done = finished.graft_here("rebuild", "1", "--environment", "mine", check=False)

    assert done.returncode == 2
    assert "current, recorded" in done.stderr


# Code as git has it


def test_git_and_the_disk_give_the_same_hashes(finished: Project) -> None:
    paths = ["metrics", "data/pins.csv", "none.py"]

    found = hashes.tree_hashes(finished.root, "HEAD", paths)

    assert found["metrics"] == tree_hash(finished.root / "metrics")
    assert found["data/pins.csv"] == tree_hash(finished.root / "data" / "pins.csv")
    assert found["none.py"] == ""


# Environments


def test_only_packages_that_differ_are_named() -> None:
    tags = {"package.numpy": version("numpy"), "package.torch": "1.0", "package.gone": "2.0", "git.commit": "x"}

    assert environment.differences(environment.packages_of(tags)) == {
        "gone": ("2.0", ""),
        "torch": ("1.0", version("torch")),
    }


def test_all_packages_of_an_execution_are_recorded(finished: Project) -> None:
    tracker = Tracker(finished.root)
    parent = tracker.client.get_run(finished.json("runs/head.json")["parent_run_id"])

    found = environment.recorded(tracker, parent)

    listed = "from importlib.metadata import distributions as d; print(*{f'{one.name}=={one.version}' for one in d()})"
    told = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    installed = {canonicalize_name(name): number for name, number in (one.split("==") for one in told)}
    assert found == {
        **{name: number for name, number in installed.items() if name != "graft"},
        "python": parent.data.tags["python"],
    }
    assert environment.differences(found) == {}


def test_a_run_of_an_older_version_has_the_packages_of_its_tags(finished: Project) -> None:
    tracker = Tracker(finished.root)
    stage = tracker.client.get_run(finished.json("runs/head.json")["run_id"])

    assert environment.recorded(tracker, stage).keys() == {*PACKAGES, "python"}


def test_an_environment_has_the_recorded_package_and_otherwise_this_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "wheels", "timm", "0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))

    python = environment.make(tmp_path / "environment", {"timm": "0.0.1"})

    asked = "from importlib.metadata import version as v; print(v('timm'), v('numpy'))"
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0.0.1", version("numpy")]


def test_a_package_that_cannot_be_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(GraftError, match=r"timm==0\.0\.2"):
        environment.make(tmp_path / "environment", {"timm": "0.0.2"})


def wheel(folder: Path, name: str, number: str) -> None:
    """A package without content, as pip takes it."""
    folder.mkdir()
    info = f"{name}-{number}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, content)


# Packages


def test_packages_are_compared_number_by_number(finished: Project, tmp_path: Path) -> None:
    package = finished.root / "models" / "package"
    other = Path(shutil.copytree(package, tmp_path / "package"))
    tensors = load_file(other / "head.safetensors")
    name = next(key for key, value in tensors.items() if value.dtype.kind == "f" and value.size)
    tensors[name].flat[0] += 0.5
    save_file(tensors, other / "head.safetensors")
    calibration = read_json(other / "calibration.json")
    write_json(other / "calibration.json", {**calibration, "more": 1})

    found = package_diff.compare(package, other)

    assert found["graph.bin"] == {"identical": True}
    assert found["head.safetensors"]["difference"] == pytest.approx(0.5, rel=1e-3)
    assert found["head.safetensors"]["in"] == name
    assert found["calibration.json"] == {"identical": False, "note": "tensors of other names or shapes"}


def test_a_graph_is_compared_by_its_weights(finished: Project, tmp_path: Path) -> None:
    package = finished.root / "models" / "package"
    other = Path(shutil.copytree(package, tmp_path / "package"))
    content = bytearray((other / "graph.bin").read_bytes())
    middle = len(content) // 8 * 4
    assert content[middle : middle + 4] != b"<<<<"
    content[middle : middle + 4] = b"<<<<"
    (other / "graph.bin").write_bytes(content)

    found = package_diff.compare(package, other)["graph.bin"]

    assert not found["identical"]
    assert found["difference"] > 0
