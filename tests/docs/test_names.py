"""Every path and every module of the code that the documentation names exists."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "flows|tasks|tests|bench|docs"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w<>./-]*")
MODULE = re.compile(r"(?<![\w./-])(?:graft\.flows|graft\.tasks|bench)(?:\.\w+)+")
FILE = re.compile(r"`([a-z]\w+\.py)`")
OTHERS = {"ask.py", "model.py", "train.py"}
"""Files that are not in the project: the example of the tutorial, a part of the package, and the script of timm."""
IMPORT = re.compile(r"^from (graft(?:\.\w+)*) import (.+)$", re.MULTILINE)


@cache
def code() -> set[str]:
    """The names of all Python files, without folders."""
    return {file.name for name in FOLDERS.split("|") for file in (ROOT / name).rglob("*.py")}


def is_path(name: str) -> bool:
    """Whether a path is there; `<stage>` and the like stand for any name."""
    return any(ROOT.glob(re.sub(r"<\w+>", "*", name.rstrip("./"))))


def is_module(name: str) -> bool:
    path = ROOT / name.removeprefix("graft.").replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def unknown(text: str) -> set[str]:
    """What a page names and the code does not have."""
    paths = {name for name in PATH.findall(text) if not is_path(name)}
    modules = {name for name in MODULE.findall(text) if not is_module(name)}
    return paths | modules | (set(FILE.findall(text)) - code() - OTHERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_and_modules_that_a_page_names_exist(page: Path) -> None:
    assert unknown(page.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_imports_can_be_imported(page: Path) -> None:
    for module, names in IMPORT.findall(page.read_text(encoding="utf-8")):
        found = importlib.import_module(module)

        assert [name for name in names.split(", ") if not hasattr(found, name)] == [], f"{module} in {page.name}"


def test_names_that_are_wrong_are_found() -> None:
    text = (
        "`flows/recorder.py` `tasks/head/` `tasks/<stage>/params.py` `tasks/<stage>/gone.py` "
        "`python -m graft.flows.stage x` `python -m graft.flows.serve` "
        "`stage.py` `not_there.py` https://example.org/docs/x `graft.tasks.head.stage`."
    )

    assert unknown(text) == {"flows/recorder.py", "tasks/<stage>/gone.py", "graft.flows.serve", "not_there.py"}
