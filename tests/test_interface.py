"""`import graft`: what it exports, at no cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graft

PROBE = """
import sys, time
begun, before = time.process_time(), {*sys.modules}
import graft
spent = time.process_time() - begun
print(spent < 0.1, sorted({"torch", "mlflow", "numpy", "pandas", "pydantic", "prefect"} & {*sys.modules}))
"""


def test_importing_it_takes_no_time_and_loads_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "True []"


@pytest.mark.parametrize("name", graft.__all__)
def test_everything_that_it_exports_is_there_and_has_a_docstring(name: str) -> None:
    assert getattr(graft, name).__doc__
    assert name in dir(graft)


def test_telemetry_is_off_before_anything_is_loaded() -> None:
    program = "import graft, os; graft.Model; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={})

    assert done.stdout.split() == ["true", "1"]


def test_the_version_is_that_of_the_package() -> None:
    assert graft.__version__[0].isdigit()


def test_a_name_that_it_does_not_have_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'train'"):
        graft.train  # noqa: B018  # type: ignore[attr-defined]


def test_a_type_checker_sees_the_same_names_in_the_same_modules() -> None:
    tree = ast.parse(Path(graft.__file__).read_text(encoding="utf-8"))
    checked = {
        alias.asname: f"{node.module}:{alias.name}"
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert checked == graft._MODULES
    assert sorted(checked) == sorted(graft.__all__)
    assert (Path(graft.__file__).parent / "py.typed").is_file()
