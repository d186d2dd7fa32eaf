"""`graft export`: which model is taken, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from projects import Project, draw_classes

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

from graft.flows.serving import export as module
from graft.tasks.common.core.errors import GraftError

WORDS = ("export", "--to", "onnx", "--output")


def exported(project: Project, *words: str) -> dict[str, object]:
    return json.loads(project.graft_here(*words, "--json").stdout)


def refused(project: Project, *words: str) -> str:
    done = project.graft_here(*words, check=False)
    assert done.returncode == 2
    return done.stderr


def test_the_champion_is_exported_and_compared_on_the_test_images(finished: Project, tmp_path: Path) -> None:
    found = exported(finished, *WORDS, str(tmp_path / "model.onnx"))

    assert found["model"] == "graft version 1"
    assert found["images"] == 9
    assert found["same_label"] == 1.0
    assert found["files"] == [str(tmp_path / name) for name in ("model.onnx", "model.onnx.README.md")]
    assert (tmp_path / "model.onnx").is_file()


def test_the_file_names_the_images_the_commit_and_the_licence(finished: Project, tmp_path: Path) -> None:
    import onnx

    exported(finished, *WORDS, str(tmp_path / "model.onnx"), "--model", "package")
    told = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}

    assert told["model"] == "models/package"
    assert told["data"].endswith(".dir")
    assert told["git_commit"] == finished.git("rev-parse", "HEAD")
    assert told["licence"] == "not known", "the weights are random"


def test_a_folder_is_exported_without_a_project(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(finished.root / "models" / "package", tmp_path / "package")
    draw_classes(tmp_path / "photos", 2)
    elsewhere = Project(tmp_path)

    assert "--images FOLDER" in refused(elsewhere, *WORDS, "m.onnx", "--model", "package")
    found = exported(elsewhere, *WORDS, "m.onnx", "--model", "package", "--images", "photos")

    assert (found["model"], found["images"]) == ("package", 6)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--model", "9"), "no version `9`"),
        (("--model", "./nothing"), "no such folder"),
        (("--images", "models/nothing.png"), "cannot be read"),
    ],
)
def test_what_is_not_there_is_refused(finished: Project, tmp_path: Path, words: tuple[str, str], named: str) -> None:
    assert named in refused(finished, *WORDS, str(tmp_path / "m.onnx"), *words)
    assert not (tmp_path / "m.onnx").exists()


def test_outside_a_project_a_model_must_be_named(tmp_path: Path) -> None:
    draw_classes(tmp_path / "photos", 1)

    assert "no --model" in refused(Project(tmp_path), *WORDS, "m.onnx", "--images", "photos")


def test_a_changed_package_is_refused(project: Project, tmp_path: Path) -> None:
    (project.root / "models" / "package" / "head.json").write_text("{}", encoding="utf-8")

    told = refused(project, *WORDS, str(tmp_path / "m.onnx"), "--model", "package")

    assert "not those that dvc.lock names" in told


def test_missing_test_images_are_refused(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.root / "data" / "raw")

    assert "9 of 9 are missing" in refused(project, *WORDS, str(tmp_path / "m.onnx"))


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)

    with pytest.raises(GraftError, match=r"graft\[onnx\]"):
        module.check_installed("onnx")


@pytest.mark.parametrize(
    ("words", "named"),
    [(("--to", "onnx"), "for OpenVINO only"), (("--to", "openvino"), "too few validation images")],
)
def test_8_bits_are_refused_for_onnx_and_without_enough_validation_images(
    finished: Project, tmp_path: Path, words: tuple[str, str], named: str
) -> None:
    pytest.importorskip("nncf", reason="needs the extra graft[int8]")
    output = tmp_path / ("m.onnx" if "onnx" in words else "m.xml")

    assert named in refused(finished, "export", *words, "--output", str(output), "--precision", "int8")
    assert not output.exists()


def test_8_bits_need_the_images_of_a_project(finished: Project, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="needs the extra graft[int8]")
    shutil.copytree(finished.root / "models" / "package", tmp_path / "package")
    draw_classes(tmp_path / "photos", 1)
    words = ("--to", "openvino", "--output", "m.xml", "--precision", "int8", "--images", "photos", "--model", "package")

    assert "need the images of the project" in refused(Project(tmp_path), "export", *words)


def test_8_bits_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "nncf" else name)

    with pytest.raises(GraftError, match=r"nncf(?s:.*)graft\[onnx,int8\]"):
        module.check_installed("openvino", int8=True)
