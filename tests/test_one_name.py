"""A stage has one name, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from graft.flows.runtime.params import SECTIONS
from graft.tasks.common.core.paths import STAGES

if TYPE_CHECKING:
    from projects import Project

ROOT = Path(__file__).resolve().parent.parent
NAMES = set(STAGES)
FLOWS = {"card", "compute", "retrain", "gate", "drift"}
"""Sections of params.yaml that belong to no stage."""
OTHERS = {"common", "export", "labelling", "studies", "__pycache__"}
"""Folders of tasks/ that are no stage."""


def test_params_yaml_has_a_section_for_each_stage() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    assert set(params) - FLOWS == NAMES
    assert set(SECTIONS) - FLOWS == NAMES


def test_dvc_yaml_has_the_stages_in_the_order_of_the_data() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        assert stage["cmd"] == f"python -P -m graft.flows.stage {name}"
        assert stage["params"] == [{"graft.lock": [name]}, name, *(["head.task"] if name == "preprocess" else [])]
        assert f"runs/{name}.json" in stage["outs"]


def test_each_stage_has_a_folder_of_code_and_one_of_tests() -> None:
    def folders(place: Path) -> set[str]:
        return {path.name for path in place.iterdir() if path.is_dir() and path.name not in OTHERS}

    assert folders(ROOT / "tasks") == NAMES
    assert folders(ROOT / "tests" / "tasks") == NAMES


def test_prefect_has_a_task_for_each_stage() -> None:
    from graft.tasks.pipeline import STAGE_TASKS

    assert tuple(task.name for task in STAGE_TASKS) == STAGES


def test_mlflow_has_a_run_for_each_stage(finished: Project) -> None:
    stages = [run.info.run_name for run in finished.runs() if "mlflow.parentRunId" in run.data.tags]

    assert stages == list(STAGES)


def test_metrics_and_runs_are_files_of_the_stages(finished: Project) -> None:
    assert {path.stem for path in (finished.root / "runs").iterdir()} == NAMES
    assert {path.stem for path in (finished.root / "metrics").iterdir()} == {*NAMES, "headline"}
