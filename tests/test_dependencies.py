"""DVC does not follow imports, so graft.lock must name them: a code change re-runs what it must, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest
import yaml

from graft.tasks.code import code_of as code_of_stage
from graft.tasks.common.core.paths import STAGES

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

WRITERS = {"images/shard_size", "images/shard_writer"}
"""What imports use to write shards, and no stage."""

UNUSED = {
    "preprocess": {
        "core/scratch",
        "core/torch_threads",
        "data/folds",
        "data/matrix",
        "images/contact_sheet",
        "images/transform",
    },
    "features": {
        "images/masks",
        "core/torch_threads",
        "core/words",
        "data/folds",
        "data/units",
        "images/contact_sheet",
        "maps/maps",
        "maps/targets",
        "maps/untrained",
    },
    "head": {
        "solvers/neighbours",
        "solvers/power_law",
        "images/contact_sheet",
        "heads/load",
        "heads/typicality",
        "scoring/paired",
        "scoring/anomaly",
        "scoring/pixels",
        "backbones/licences",
        "engines/one_decode",
        "feature_cache/thumbnails",
    },
    "audit": {
        "scoring/false_alarms",
        "images/masks",
        "heads/anomaly",
        "heads/patches",
        "heads/gaussian",
        "heads/subspace",
        "solvers/coreset",
        "core/torch_threads",
        "core/words",
        "heads/knn",
        "heads/load",
        "heads/mean",
        "heads/mlp",
        "heads/typicality",
        "images/transform",
        "reporting/heat_map",
        "scoring/paired",
        "scoring/anomaly",
        "scoring/pixels",
        "heads/decoder",
        "scoring/decoded",
        "scoring/pixel_threshold",
        "scoring/judging",
    },
    "finetune": {
        "solvers/neighbours",
        "solvers/power_law",
        "scoring/false_alarms",
        "images/masks",
        "solvers/coreset",
        "backbones/licences",
        "core/torch_threads",
        "core/words",
        "engines/one_decode",
        "feature_cache/thumbnails",
        "heads/typicality",
        "scoring/anomaly",
        "scoring/pixels",
        "scoring/decoded",
        "scoring/pixel_threshold",
        "scoring/judging",
    },
    "evaluate": {
        "core/scratch",
        "feature_cache/thumbnails",
        "scoring/false_alarms",
        "backbones/licences",
        "data/folds",
        "engines/one_decode",
        "heads/typicality",
        "scoring/class_bias",
        "scoring/class_thresholds",
        "scoring/conformal",
        "scoring/paired",
        "scoring/temperature",
    },
    "register": {
        "core/scratch",
        "images/masks",
        "backbones/licences",
        "core/torch_threads",
        "core/words",
        "data/folds",
        "feature_cache/thumbnails",
        "images/contact_sheet",
        "maps/targets",
        "maps/untrained",
    },
}
"""Stage -> the modules of tasks/common that a change of runs the stage, though it does not import them."""


@pytest.fixture(scope="session")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("graft", cache_dir=None)


def file_of(module: str) -> Path:
    path = ROOT / module.removeprefix("graft.").replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def holds_code(file: Path) -> bool:
    """Whether a package's __init__ does more than describe it."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf-8")).body)


def closure(stage: str, imports: grimp.ImportGraph) -> set[str]:
    """The files that a stage imports, directly or through others, and the data that lie beside them."""
    package = f"graft.tasks.{stage}"
    modules = imports.find_descendants(package) | {package}
    reached = set().union(*(imports.find_upstream_modules(module) for module in modules)) | modules
    parents = {module.rsplit(".", n)[0] for module in reached for n in range(1, module.count("."))}
    files = {file_of(module) for module in reached | parents}
    files |= {
        data
        for file in files
        for data in (*file.parent.glob(f"{file.stem}.*"), *file.parent.glob("templates/*"))
        if data.suffix not in (".py", ".pyc")
    }
    return {file.relative_to(ROOT).as_posix() for file in files if file.name != "__init__.py" or holds_code(file)}


def code_of(stage: str) -> set[str]:
    return {*code_of_stage(stage)}


def room_of(file: str) -> str:
    """What graft.lock names for a file: its stage, its room of tasks/common, or itself."""
    parts = file.split("/")
    return "/".join(parts[: 3 if parts[1] == "common" else 2])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_rooms_that_it_imports(stage: str, imports: grimp.ImportGraph) -> None:
    assert code_of(stage) == {room_of(file) for file in closure(stage, imports)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_that_a_stage_does_not_need_is_known_to_run_it(stage: str, imports: grimp.ImportGraph) -> None:
    """Rooms are whole: a stage also depends on the modules of a room that it does not import, listed here by name."""
    files = {
        file.relative_to(ROOT / "tasks" / "common").as_posix().removesuffix(".py")
        for room in code_of(stage)
        for file in (ROOT / room).rglob("*.py")
        if room.startswith("tasks/common/") and file.name != "__init__.py"
    }
    used = {file.removeprefix("tasks/common/").removesuffix(".py") for file in closure(stage, imports)}

    assert files - used == UNUSED[stage] | WRITERS


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_what_orchestrates_it(stage: str, imports: grimp.ImportGraph) -> None:
    assert not [file for file in closure(stage, imports) if file.startswith("flows") or file == "tasks/pipeline.py"]


def test_what_one_stage_reads_another_writes_or_the_user_brings() -> None:
    outs = {next(iter(out)) if isinstance(out, dict) else out for entry in PIPELINE.values() for out in entry["outs"]}
    deps = {dep for entry in PIPELINE.values() for dep in entry["deps"]}

    within = {dep for dep in deps if any(dep.startswith(f"{out}/") for out in outs)}
    assert deps - outs - within == {"data/raw", "data/labels.csv", "data/pins.csv", "data/weights"}
    assert not [out for out in deps if out.startswith(("runs/", "metrics/"))], "a metric that differs from run to run"
