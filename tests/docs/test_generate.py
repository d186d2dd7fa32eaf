"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current() -> None:
    checked = subprocess.run([sys.executable, str(SCRIPT), "--check"], cwd=ROOT, capture_output=True, text=True)

    assert checked.returncode == 0, f"run: make docs\n{checked.stdout}{checked.stderr}"


def test_every_command_has_a_section_with_all_its_options(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

    commands = list(generate.commands(generate.typer.main.get_command(generate.app), "graft"))
    assert {"graft import", "graft cache gc"} <= {name for name, _ in commands}
    for name, command in commands:
        section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        flags = [max(param.opts, key=len) for param in command.params if param.param_type_name == "option"]
        assert [flag for flag in flags if flag not in section] == [], name


def test_what_is_written_by_hand_stays(generate: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{generate.BEGIN}\nold\n{generate.END}\nafter\n", encoding="utf-8")

    made = generate.between_marks(page, "new")

    assert made == f"before\n{generate.BEGIN}\n\nnew\n\n{generate.END}\nafter\n"


def test_a_page_without_marks_is_an_error(generate: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand", encoding="utf-8")

    with pytest.raises(SystemExit, match=r"page\.md has no part between"):
        generate.between_marks(page, "new")


def test_markup_in_a_description_stays_text(generate: ModuleType) -> None:
    assert generate.sentence("a|b\n  <c> `<d>`") == r"a\|b &lt;c> `<d>`"
