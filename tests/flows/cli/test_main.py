"""The console script: help, version, and errors."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from projects import Project

from graft.flows.cli.main import app
from graft.flows.cli.options import PANELS

GROUPS = {
    "Data": ["init", "sample", "import"],
    "Train": ["params", "repro", "run", "rank", "compare", "models"],
    "Look": ["status", "ui", "summary", "why", "trace", "drift", "classify"],
    "Decide": ["ledger", "promote", "rollback", "rebuild"],
    "Operate": ["schedule", "doctor", "cache"],
}
COMMANDS = [command for group in GROUPS.values() for command in group if command != "cache"]


def graft(*words: str, columns: int = 100) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "graft.flows.cli", *words], capture_output=True, text=True, env={"COLUMNS": str(columns)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_groups_the_commands_by_what_you_want_to_do() -> None:
    sections = graft("--help").split("\n\n")
    found = {
        lines[0].removesuffix(":"): [line.split()[0] for line in lines[1:] if line[2] != " "]
        for lines in (section.splitlines() for section in sections)
        if lines[0].removesuffix(":") in PANELS
    }

    assert list(found.items()) == list(GROUPS.items())


@pytest.mark.parametrize("words", [[], ["cache"]])
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_help_fits_and_cuts_no_sentence_off(words: list[str], columns: int) -> None:
    told = graft(*words, "--help", columns=columns)

    assert "..." not in told.replace("[ARGS]...", "")
    assert max(map(len, told.splitlines())) <= columns


def test_each_summary_is_one_line_of_a_hundred_columns() -> None:
    lines = graft("--help").splitlines()

    assert all(line.endswith((".", ":", "...")) for line in lines if line)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(empty_project: Project, command: str) -> None:
    told = empty_project.graft_here(command, "--help").stdout

    assert "--project" in told or command == "init", "which names its folder by itself"
    assert len(told.splitlines()) > 5


def test_without_a_command_the_help_is_printed(empty_project: Project) -> None:
    done = empty_project.graft_here(check=False)

    assert "Operate:" in done.stdout + done.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert graft("--version") == f"graft {version('graft')}\n"


def test_a_command_that_does_not_exist_is_refused(empty_project: Project) -> None:
    done = empty_project.graft_here("sumary", check=False)

    assert done.returncode == 2
    assert "summary" in done.stderr


def test_help_loads_nothing_large() -> None:
    code = (
        "import sys; import graft.flows.cli.main;"
        "print(sorted({'mlflow', 'prefect', 'dvc', 'torch', 'pandas', 'numpy', 'pydantic', 'yaml', 'rich.table'}"
        " & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_group_of_commands_is_merged_flat() -> None:
    assert [group.name for group in app.registered_groups if group.name] == ["cache"]


def test_outside_a_project_there_is_one_clear_error(empty_project: Project, tmp_path) -> None:
    done = empty_project.graft("summary", "--project", str(tmp_path), check=False)

    assert done.returncode == 2
    assert "is not in a Graft project" in done.stderr
    assert "Traceback" not in done.stderr
