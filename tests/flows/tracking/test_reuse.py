"""What an execution was asked for, and what it reused: by dvc.yaml and dvc.lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from graft.flows.tracking.reuse import asked_for, reused_stages
from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.sections import read_params

if TYPE_CHECKING:
    from projects import Project

ALL = list(STAGES)


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["dvc", "repro"], ALL),
        (["dvc", "repro", "head"], ALL[:3]),
        (["dvc", "repro", "dvc.yaml:features", "--force"], ALL[:2]),
        (["dvc", "repro", "--single-item", "evaluate"], ALL[:6]),
        (["dvc", "repro", "--downstream", "evaluate"], ALL),
        (["dvc", "repro", "--pipeline", "head"], ALL),
        (["graft.flows.stage", "preprocess"], ALL[:1]),
        (["my_flow.py"], ALL),
    ],
)
def test_a_command_asks_for_what_it_names_and_for_what_that_depends_on(
    finished: Project, words: list[str], stages: list[str]
) -> None:
    assert asked_for(finished.root, words) == stages


def test_after_a_run_that_had_nothing_to_do_all_that_was_asked_for_is_reused(finished: Project) -> None:
    runs = {stage: finished.json(f"runs/{stage}.json")["run_id"] for stage in STAGES}

    assert reused_stages(finished.root, ALL, {}) == runs
    assert list(reused_stages(finished.root, ALL[:3], {})) == ALL[:3]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_nothing_after_a_stage_that_did_not_end_well_is_reused(finished: Project, status: str) -> None:
    assert list(reused_stages(finished.root, ALL, {"head": status})) == ["preprocess", "features"]


def test_a_result_that_dvc_lock_does_not_describe_is_not_reused_nor_what_follows(project: Project) -> None:
    file = Paths(project.root).run("features")
    run = read_json(file)
    write_json(file, {**run, "outputs": {**run["outputs"], "data/features": "0" * 32 + ".dir"}})

    assert list(reused_stages(project.root, ALL, {})) == ["preprocess"]


def test_a_result_made_of_an_earlier_head_is_not_reused(project: Project) -> None:
    lock = read_params(project.root / "dvc.lock")
    for out in lock["stages"]["head"]["outs"]:
        if out["path"] == "models/head":
            out["md5"] = "0" * 32 + ".dir"
    (project.root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")

    assert list(reused_stages(project.root, ALL, {"head": "FINISHED"})) == ["preprocess", "features"]
