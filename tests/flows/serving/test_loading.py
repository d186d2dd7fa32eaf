"""Which model predicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import Project

from graft.flows.serving.loading import named, open_model
from graft.tasks.common.core.errors import GraftError


def test_the_champion_is_the_default(finished: Project) -> None:
    with open_model(None, finished.root) as model:
        assert (model.name, model.version, model.where) == ("graft", "1", "graft version 1")


def test_a_project_without_a_champion_predicts_with_its_package(project: Project) -> None:
    (project.root / "mlflow.db").unlink()

    with open_model(None, project.root) as model:
        assert model.where == "models/package"


def test_a_package_needs_no_project(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished.root / "models" / "package", tmp_path / "exported")
    monkeypatch.chdir(tmp_path)

    with open_model("exported", Path()) as model:
        assert model.root is None
        assert model.classifier.classes == ["blue", "green", "red"]


def test_a_model_downloaded_from_mlflow_is_such_a_folder_too(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.root / "models" / "package", tmp_path / "model" / "artifacts" / "package")
    monkeypatch.chdir(tmp_path)

    with open_model("model/", Path()) as model:
        assert model.facts["task"] == "classification"


def test_outside_a_project_a_package_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(GraftError, match="--model FOLDER"), open_model(None, Path()):
        pass


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(GraftError, match=r"no package\.json, head\.json, calibration\.json in it"),
        open_model(str(tmp_path), Path()),
    ):
        pass


def test_a_folder_that_does_not_exist_is_not_taken_for_a_version(finished: Project) -> None:
    with pytest.raises(GraftError, match="no such folder"), open_model("./nothing", finished.root):
        pass


@pytest.mark.parametrize("name", ["head.safetensors", "package.json", "graph.xml", "graph.bin"])
def test_a_damaged_package_is_refused_by_name(finished: Project, tmp_path: Path, name: str) -> None:
    shutil.copytree(finished.root / "models" / "package", tmp_path / "exported")
    file = tmp_path / "exported" / name
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:100])

    with (
        pytest.raises(GraftError, match="exported cannot be"),
        open_model(str(tmp_path / "exported"), finished.root) as model,
    ):
        model.classifier.eyes.load()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("champion", ("graft", "champion")),
        ("7", ("graft", "7")),
        ("birds@champion", ("birds", "champion")),
        ("birds/3", ("birds", "3")),
        ("models:/birds@champion", ("birds", "champion")),
    ],
)
def test_versions_are_named_as_in_mlflow(finished: Project, wanted: str, expected: tuple[str, str]) -> None:
    assert named(wanted, finished.root) == expected


def test_a_version_that_does_not_exist_is_refused(finished: Project) -> None:
    with pytest.raises(GraftError, match="has no version `7`"), open_model("7", finished.root):
        pass
