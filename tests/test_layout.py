"""The layout shows itself: rooms with one purpose, imports that go one way, and modules of a readable length."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grimp
import networkx
import pytest

from graft.tasks.code import code_of
from graft.tasks.common.core.paths import STAGES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def functions() -> list[int]:
    """The length of every function of the project, in lines."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in MODULES)
    found = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)


def test_no_modules_import_each_other() -> None:
    imports = grimp.build_graph("graft", cache_dir=None)
    graph = networkx.DiGraph(
        (module, other) for module in imports.modules for other in imports.find_modules_directly_imported_by(module)
    )

    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "bench", "docs"])
def test_nothing_is_imported_by_a_bare_name_that_a_user_may_have_too(folder: str) -> None:
    bare = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(PACKAGES)})\b", re.MULTILINE)

    assert [file for file in (ROOT / folder).rglob("*.py") if bare.search(file.read_text(encoding="utf-8"))] == []


def test_threads_follow_the_cores_that_a_process_may_use() -> None:
    """By default a pool, and `os.cpu_count`, go by those of the machine."""
    machine = re.compile(r"ThreadPoolExecutor\(\)|cpu_count")

    found = [file for file in MODULES if machine.search(file.read_text(encoding="utf-8"))]
    assert found == [ROOT / "tasks" / "common" / "core" / "cores.py"]


def test_ray_is_imported_only_where_the_parameter_asks_for_it() -> None:
    """That is, within functions of flows/cluster: the extra `ray` may not be installed."""
    imports = re.compile(r"^(\s*)(?:from|import) ray\b", re.MULTILINE)
    found = {(file, indent) for file in MODULES for indent in imports.findall(file.read_text(encoding="utf-8"))}

    assert not [file for file, indent in found if not indent or file.parent != ROOT / "flows" / "cluster"]


def test_flows_is_made_of_rooms_alone() -> None:
    assert [file.name for file in (ROOT / "flows").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("package", [*PACKAGES, "tasks/common"])
def test_every_room_says_what_it_is_for_and_holds_no_code_in_its_init(package: str) -> None:
    for room in (file for file in (ROOT / package).glob("*/__init__.py")):
        body = ast.parse(room.read_text(encoding="utf-8")).body

        assert len(body) == 1, f"{room} holds code"
        assert isinstance(body[0], ast.Expr), f"{room} has no docstring"


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}

    assert {str(file.relative_to(ROOT)): length for file, length in lengths.items() if length > 400} == {}


def test_nine_functions_in_ten_have_at_most_21_lines() -> None:
    lengths = functions()

    assert lengths[int(0.9 * len(lengths))] <= 21


def test_a_stage_has_at_most_thirteen_code_dependencies_and_dvc_yaml_at_most_220_lines() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 220
    assert {stage: count for stage in STAGES if (count := len(code_of(stage))) > 13} == {}
