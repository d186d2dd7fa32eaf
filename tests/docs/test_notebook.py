"""The example notebook runs, and its page shows what it has shown."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from projects import Project

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import ast, json, sys

names, shown = {"__name__": "__main__"}, []
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    shown.append(value is not None and bool(getattr(value, "_repr_html_", str)()))
print(json.dumps(shown))
"""
"""Runs the code of each cell, in order; tells whether its last expression shows itself as HTML."""


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_page", ROOT / "docs" / "notebook_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_cell_runs_and_shows_what_the_notebook_shows(project: Project, page: ModuleType) -> None:
    said = project.call(sys.executable, "-c", RUN, str(page.NOTEBOOK)).stdout

    code = [cell for cell in page.cells() if cell["cell_type"] == "code"]
    assert json.loads(said.splitlines()[-1]) == [
        any("text/html" in output.get("data", {}) for output in cell["outputs"]) for cell in code
    ]


def test_the_notebook_has_been_executed_in_order_without_an_error(page: ModuleType) -> None:
    code = [cell for cell in page.cells() if cell["cell_type"] == "code"]

    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert {output["output_type"] for cell in code for output in cell["outputs"]} <= {"stream", "execute_result"}


def test_the_notebook_names_no_machine(page: ModuleType) -> None:
    text = page.NOTEBOOK.read_text(encoding="utf-8")

    assert "/home/" not in text
    assert "/tmp/" not in text


def test_html_that_a_cell_has_shown_is_one_line_of_the_page(page: ModuleType) -> None:
    assert (
        page.shown({"output_type": "execute_result", "data": {"text/html": ["<p>\n", "\n", "a</p>\n"]}}) == "<p> a</p>"
    )
    assert page.shown({"output_type": "stream", "text": ["a\n", "b\n"]}) == "```text\na\nb\n```"
