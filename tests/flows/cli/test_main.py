"""The console script: help, version, and errors."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from projects import Project

from graft.flows.cli.main import app
from graft.flows.cli.options import COLUMNS, PANELS, examples

GROUPS = {
    "Data": ["init", "sample", "import", "shard", "unshard", "group-copies", "label"],
    "Train": ["params", "repro", "run", "rank", "compare", "models"],
    "Use": ["predict", "serve", "export", "classify"],
    "Operate": ["schedule", "doctor", "licences", "promote", "rollback", "rebuild", "packet", "verify", "cache"],
    "Look": ["status", "ui", "summary", "why", "trace", "ledger", "drift"],
}
COMMANDS = [command for group in GROUPS.values() for command in group if command not in ("cache", "label")]


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


@pytest.mark.parametrize("words", [[], ["cache"], ["label"]])
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_help_fits_and_cuts_no_sentence_off(words: list[str], columns: int) -> None:
    told = graft(*words, "--help", columns=columns)

    assert "..." not in told.replace("[ARGS]...", "")
    assert max(map(len, told.splitlines())) <= columns


def test_each_summary_is_one_line_of_a_hundred_columns() -> None:
    lines = graft("--help").partition("\nData:")[2].splitlines()

    assert all(line.endswith((".", ":", "...")) for line in lines if line)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(empty_project: Project, command: str) -> None:
    told = empty_project.graft_here(command, "--help").stdout

    assert "--project" in told or command in ("init", "licences"), "the others work on a project"
    assert len(told.splitlines()) > 5


def every_command(group: Any, name: str = "graft") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


EVERY = dict(every_command(typer.main.get_command(app)))


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_examples_that_it_would_take(name: str) -> None:
    lines = EVERY[name].epilog.splitlines()
    shown = [line.strip() for line in lines if line.strip().startswith("graft ")]

    assert shown[0].startswith(name)
    assert max(map(len, lines)) <= COLUMNS
    for line in shown:
        typed = line.partition("  ")[0].partition(" > ")[0]
        meant = max((each for each in EVERY if f"{typed} ".startswith(f"{each} ")), key=len)
        EVERY[meant].make_context(meant, shlex.split(typed.removeprefix(meant)))


def test_examples_that_would_not_fit_have_their_meanings_below() -> None:
    text = examples({"graft " + "x" * 70: "long", "graft y": "short"})

    assert text.splitlines()[2:] == [f"  graft {'x' * 70}", "      long", "  graft y", "      short"]


def complete(typed: str, **more: str) -> list[str]:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_GRAFT_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'graft'; from graft.flows.cli.main import main; main()"],
        capture_output=True,
        text=True,
        env={**words, **more},
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("graft pro", {"promote"}),
        ("graft cache ", {"ls", "verify", "compact", "gc"}),
        ("graft label ", {"add", "next", "apply", "export"}),
        ("graft ui --ml", {"--mlflow-port"}),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: set[str]) -> None:
    assert {*complete(typed)} == offered


def test_installing_completion_writes_its_script_and_one_line_of_the_shells_file(tmp_path: Path) -> None:
    bashrc = tmp_path / ".bashrc"
    bashrc.write_text("alias ll='ls -l'\n", encoding="utf-8")
    variables = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "PATH": os.environ["PATH"]}
    command = [str(Path(sys.executable).parent / "graft"), "--install-completion", "bash"]

    subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True)

    written = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {".bashrc", ".bash_completions/graft.sh"}
    assert bashrc.read_text(encoding="utf-8").split("\n")[0] == "alias ll='ls -l'"
    assert bashrc.read_text(encoding="utf-8").count("graft.sh") == 1
    assert "_GRAFT_COMPLETE" in (tmp_path / ".bash_completions" / "graft.sh").read_text(encoding="utf-8")


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
    assert [group.name for group in app.registered_groups if group.name] == ["label", "cache"]


def test_outside_a_project_there_is_one_clear_error(empty_project: Project, tmp_path) -> None:
    done = empty_project.graft_here("summary", "--project", str(tmp_path), check=False)

    assert done.returncode == 2
    assert "is not in a Graft project" in done.stderr
    assert "Traceback" not in done.stderr
