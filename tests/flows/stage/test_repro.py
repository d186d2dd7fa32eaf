"""`dvc repro`: what changed is run again, and nothing else; what is killed leaves nothing half done."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from projects import draw, draw_classes, make_project

from graft.flows.versioning.losses import require_no_loss
from graft.tasks.common.core.paths import STAGES

if TYPE_CHECKING:
    from projects import Project, Rerun

SETTLED = ("data/manifest", "data/features", "models/head", "report")
"""Outputs that every run from scratch must write with the same bytes."""


def append_comment(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")


def would_run(project: Project) -> set[str]:
    """The stages that DVC finds changed."""
    import json

    return set(json.loads(project.dvc("status", "--json").stdout))


def settled_metrics(project: Project) -> dict[str, Any]:
    """All metrics that are not times."""
    times = ("seconds", "startup_seconds", "images_per_second", "cache_hits", "cache_misses")
    found = {stage: project.json(f"metrics/{stage}.json") for stage in STAGES}
    return {
        stage: {key: value for key, value in metrics.items() if key not in times} for stage, metrics in found.items()
    }


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    assert project.repro() == []


def test_another_head_parameter_runs_the_head_and_what_follows(rerun: Rerun) -> None:
    assert rerun.ran == ["head", "audit", "finetune", "evaluate", "register"]


def test_a_failing_audit_stops_the_run_and_leaves_its_page_and_its_record(project: Project) -> None:
    (project.root / "report").rename(project.root / "former")
    project.set("audit", outlier_score=0.01, max_outliers=0.0, on_outliers="fail")

    done = project.dvc("repro", check=False)

    assert done.returncode
    assert "`audit.max_outliers`" in done.stderr
    assert 'alt="Outliers"' in (project.root / "data" / "audit" / "index.html").read_text(encoding="utf-8")
    assert not (project.root / "report").exists()
    before, failed = [run for run in project.runs() if run.info.run_name == "audit"]
    assert (before.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.data.metrics["outliers"] > before.data.metrics["outliers"]
    assert failed.data.tags["outliers"].startswith("fail: ")
    assert "`audit.max_outliers`" in failed.data.tags["mlflow.note.content"]
    kept = {file.path for file in project.mlflow().list_artifacts(failed.info.run_id)}
    assert {"index.html", "outliers.parquet", "outliers.png"} <= kept
    parent = project.mlflow().get_run(failed.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FAILED"


def test_a_comment_in_the_heads_code_runs_the_head(project: Project) -> None:
    append_comment(project.own_code() / "tasks" / "head" / "stage.py")

    assert project.repro() == ["head"], "its output is the same, so nothing that follows has to run"


def test_one_more_image_is_noticed_and_alone_goes_through_the_backbone(project: Project) -> None:
    draw(project.root / "data" / "raw" / "red" / "new.png", 0, 999)

    assert project.repro("features") == ["preprocess", "features"]
    assert project.json("metrics/features.json")["cache_misses"] == 1
    assert project.json("metrics/features.json")["cache_hits"] == 42


@pytest.mark.parametrize(
    "file", ["flows/retrain/flow.py", "flows/stage/__main__.py", "flows/tracking/tracker.py", "tasks/pipeline.py"]
)
def test_a_change_of_the_orchestration_runs_nothing(project: Project, file: str) -> None:
    append_comment(project.own_code() / file)
    project.set("retrain", retries=5)

    assert would_run(project) == set()


def test_a_second_clone_pulls_everything_and_has_nothing_to_run(project: Project, tmp_path: Path) -> None:
    clone = project.pushed_and_cloned(tmp_path)

    clone.dvc("pull")

    assert clone.repro() == []
    assert clone.git("status", "--porcelain") == ""
    assert clone.json("metrics/evaluate.json") == project.json("metrics/evaluate.json")


def test_a_run_from_scratch_gives_the_same_bytes_even_if_killed_and_leaves_nothing_half_written(
    finished: Project, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    shutil.copytree(finished.root / "data" / "raw", project.root / "data" / "raw")
    project.dvc("add", "data/raw")
    for stage in ("features", "head", "register"):
        kill_during(project, stage)
        for out, digest in outs_there(project).items():
            assert digest == finished.lock()[out], f"{out} is not what an undisturbed run writes"
        assert not list(project.root.glob("data/features/*.part"))

    project.repro()

    first, second = finished.lock(), project.lock()
    assert {out: first[out] for out in SETTLED} == {out: second[out] for out in SETTLED}
    assert settled_metrics(project) == settled_metrics(finished)
    assert not list((project.root / "data").glob(".*.part"))


def kill_during(project: Project, stage: str) -> None:
    """Starts `dvc repro` and kills it and all its children, without warning, once the stage has begun its work."""
    process = project.start_repro()
    deadline = time.monotonic() + 120
    while not any(running(child, stage) for child in psutil.Process(process.pid).children(recursive=True)):
        assert process.poll() is None, f"the pipeline ended before the stage {stage} was seen"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def running(process: psutil.Process, stage: str) -> bool:
    """Whether it is the stage's Python, far enough to have loaded its libraries."""
    try:
        return process.cmdline()[-2:] == ["graft.flows.stage", stage] and process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def outs_there(project: Project) -> dict[str, str]:
    from graft.tasks.code import tree_hash

    return {out: tree_hash(project.root / out) for out in SETTLED if (project.root / out).exists()}


def test_a_wrong_parameter_stops_before_anything_is_lost(project: Project) -> None:
    before = project.lock()
    right = (project.root / "params.yaml").read_text(encoding="utf-8")
    project.set("head", l2_max=0.5, strenghts=3)

    done = project.dvc("repro", check=False)

    assert done.returncode != 0
    assert "unknown key `head.strenghts`" in done.stderr
    assert "did you mean `strengths`?" in done.stderr
    assert project.lock() == before
    assert "DVC had removed metrics/head.json, models/head, plots/head, runs/head.json; restored" in done.stderr
    (project.root / "params.yaml").write_text(right, encoding="utf-8")
    assert project.git("status", "--porcelain") == ""
    assert project.repro() == [], "everything is as it was"


def test_an_image_that_is_neither_here_nor_in_dvcs_cache_is_asked_about(project: Project, tmp_path: Path) -> None:
    draw_classes(tmp_path / "more", 1)
    image = next((project.root / "data" / "raw" / "red").iterdir())
    digest = hashlib.md5(image.read_bytes()).hexdigest()
    name = image.relative_to(project.root / "data" / "raw").as_posix()
    image.unlink()
    require_no_loss(project.root)
    (project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()

    for done in (
        project.graft_here("repro", check=False),
        project.graft_here("import", "--add", str(tmp_path / "more"), check=False),
        project.dvc("repro", "preprocess", check=False),
    ):
        assert done.returncode != 0
        assert "1 image is neither in data/raw nor in DVC's cache" in done.stderr
        assert name in done.stderr
    project.git("commit", "--quiet", "--message", "it is to go", "data/raw.dvc")
    require_no_loss(project.root)


def test_dvcs_own_commands_say_something_useful(rerun: Rerun, tmp_path: Path) -> None:
    project = rerun.copy(tmp_path / "project")

    assert "evaluate" in project.dvc("dag").stdout
    metrics = project.dvc("metrics", "show").stdout
    assert "accuracy_low" in metrics
    assert max(map(len, metrics.splitlines())) <= 110
    assert "head.l2_max" in project.dvc("params", "diff").stdout
    shown = project.dvc("plots", "show").stdout
    page = Path(shown.strip().removeprefix("file://")).read_text(encoding="utf-8")
    for title in ("Confusion on the test images", "Loss of the head's candidates", "Images by label"):
        assert title in page
    assert "log_loss" in project.dvc("metrics", "diff").stdout


def test_an_experiment_with_another_head_leaves_features_alone(project: Project) -> None:
    done = project.dvc("exp", "run", "-S", "head.strengths=5", "--name", "weaker", "head")

    assert "Running stage 'head'" in done.stdout
    assert "Running stage 'features'" not in done.stdout
    assert "weaker" in project.dvc("exp", "show", "--csv").stdout
