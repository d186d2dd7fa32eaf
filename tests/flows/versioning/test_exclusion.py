"""Files that Graft changes are in no DVC command's use meanwhile."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from projects import draw_classes

from graft.flows.versioning.exclusion import kept_from_dvc
from graft.tasks.common.core.errors import GraftError
from graft.tasks.dvc_process import wait_for_dvc

if TYPE_CHECKING:
    from pathlib import Path

    from projects import Project

HOLDER = """
import sys
from pathlib import Path
from graft.flows.versioning.exclusion import kept_from_dvc

with kept_from_dvc(Path(sys.argv[1]), "data/raw"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_graft_waits_and_plain_dvc_names_who_has_the_files(empty_project: Project) -> None:
    root = empty_project.root
    draw_classes(root / "data" / "raw", 1)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        other.communicate()

    refused = empty_project.dvc("add", "data/raw", check=False)
    assert wait_for_dvc(root, tell)

    assert refused.returncode != 0
    assert f"(PID {other.pid})" in refused.stderr
    (line,) = lines
    assert f"(process {other.pid}), at most 60 minutes" in line
    assert not wait_for_dvc(root, tell), "it has given them back"


def test_ones_own_files_are_not_waited_for_and_a_folder_without_dvc_has_no_commands(
    empty_project: Project, tmp_path: Path
) -> None:
    with kept_from_dvc(empty_project.root, "data/raw"), kept_from_dvc(tmp_path, "data/raw"):
        assert not wait_for_dvc(empty_project.root, pytest.fail)


def test_a_damaged_configuration_is_named(empty_project: Project) -> None:
    (empty_project.root / ".dvc" / "config").write_text("[nonsense", encoding="utf-8")

    with (
        pytest.raises(GraftError, match="is not a configuration of DVC's"),
        kept_from_dvc(empty_project.root, "data/raw"),
    ):
        raise AssertionError("it was taken")
