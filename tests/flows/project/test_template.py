"""The files of a new project are this repository's own: it is a project, too."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from projects import ROOT

from graft.flows.project import template
from graft.flows.project.template import COPIED, JOINED, add_lines, text_of


def test_a_project_has_the_stages_and_parameters_of_this_repository() -> None:
    assert text_of("dvc.yaml") == (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    own = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text_of("params.yaml") == own.partition("\n")[2], "without the schema, which lies in docs/"


@pytest.mark.parametrize("name", [".dvc/config", ".dvc/.gitignore", "data/pins.csv"])
def test_short_files_are_those_of_this_repository(name: str) -> None:
    assert text_of(name) == (ROOT / name).read_text(encoding="utf-8")


def test_git_ignores_in_a_project_what_it_ignores_here() -> None:
    own = (ROOT / ".gitignore").read_text(encoding="utf-8")

    assert own.startswith(text_of(".gitignore"))
    assert "/data/raw" in text_of(".gitignore")
    assert "egg-info" not in text_of(".gitignore")


def test_every_template_is_a_file_of_a_project() -> None:
    assert {file.name for file in template.FOLDER.iterdir()} == {*COPIED.values(), *JOINED.values()}


def test_dvc_does_not_take_a_template_for_a_pipeline() -> None:
    assert not [file for file in template.FOLDER.iterdir() if file.name == "dvc.yaml" or file.suffix == ".dvc"]


def test_templates_and_sample_are_in_the_wheel() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]

    assert data["graft.flows.project"] == ["template/*"]
    assert "sample/*.zip" in data["graft"]


def test_the_workflow_runs_commands_that_exist() -> None:
    import typer

    from graft.flows.cli.main import app

    known = set(typer.main.get_command(app).list_commands(typer.Context(typer.main.get_command(app))))  # type: ignore[attr-defined]
    job = yaml.safe_load(text_of(".github/workflows/graft.yml"))["jobs"]["pipeline"]
    lines = [line.split() for step in job["steps"] for line in step.get("run", "").splitlines()]
    assert {words[1] for words in lines if words[0] == "graft"} == {"doctor", "status", "repro", "summary"} & known
    assert lines[0][-1] == "requirements.txt"


def test_requirements_install_nothing_by_a_name_that_may_be_anothers_on_a_public_index() -> None:
    from importlib.metadata import version

    text = text_of("requirements.txt")
    assert f"Graft {version('graft')}" in text
    assert all(line.startswith("#") for line in text.splitlines())


def test_an_installation_from_a_repository_is_named_by_its_commit_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "graft-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: graft\nVersion: 9.9\n", encoding="utf-8")
    (folder / "direct_url.json").write_text(
        '{"url": "https://me:secret@git.example.org/team/graft.git",'
        ' "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}',
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert text_of("requirements.txt") == "graft @ git+https://git.example.org/team/graft.git@0123abc\n"


def test_lines_are_appended_below_what_a_user_wrote(tmp_path: Path) -> None:
    file = tmp_path / ".gitignore"
    file.write_bytes(b"mine\xff\n/runs")

    assert add_lines(file, "# ours\n/runs\n/plots\n")
    assert file.read_bytes() == b"mine\xff\n/runs\n# ours\n/runs\n/plots\n"
    assert not add_lines(file, "# ours\n/runs\n/plots\n"), "nothing is missing any more"
