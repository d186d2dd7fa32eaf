"""`graft compare`, on a project whose pipeline has run; a tiny network with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.flows.studies import compare
from graft.flows.studies.compare import compare_methods
from graft.tasks.common.core.errors import GraftError, ParamsError

if TYPE_CHECKING:
    from projects import Project

SHORT = {"epochs": 1, "batch_size": 8, "precision": "f32"}


@pytest.fixture(scope="module")
def compared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """A project in which all methods were compared; its test images are gone. For reading only."""
    project = finished.copy(tmp_path_factory.mktemp("compared") / "project")
    project.set("finetune", **SHORT)
    manifest = pd.read_parquet(project.root / "data" / "manifest" / "manifest.parquet")
    for path in manifest["path"][manifest["split"] == "test"]:
        (project.root / "data" / "raw" / path).unlink()
    told = project.graft_here("compare", "--shares", "0.5,1", "--seeds", "1", "--page", "docs/own.md", "--json").stdout
    return project, json.loads(told)


def test_every_method_is_there_at_every_size_and_no_test_image_was_read(
    compared: tuple[Project, dict[str, Any]],
) -> None:
    _, found = compared

    assert [row["method"] for row in found["points"][::2]] == ["head", "last_stage", "all", "scratch"]
    assert [row["share"] for row in found["points"]] == [0.5, 1.0] * 4
    for row in found["points"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["seen"] > 0) == (row["method"] != "head")
        assert row["seconds"] > 0
    assert len(found["crossings"]) == 3
    assert found["advice"].startswith("Use `")
    assert found["left_out"] == {}


def test_files_are_written_and_git_ignores_them_but_for_the_page(compared: tuple[Project, dict[str, Any]]) -> None:
    project, found = compared

    assert json.loads(Path(found["file"]).read_text(encoding="utf-8")) == found
    page = (project.root / "docs" / "own.md").read_text(encoding="utf-8")
    assert "![accuracy against the number of images](own.png)" in page
    assert found["advice"] in page
    assert page.count("| `scratch`: from scratch |") == 2
    with Image.open(project.root / "docs" / "own.png") as image:
        assert image.width > 500
    assert not [line for line in project.git("status", "--porcelain").splitlines() if "compare" in line]


def test_mlflow_has_the_run_with_metrics_words_and_files(compared: tuple[Project, dict[str, Any]]) -> None:
    project, found = compared
    (run,) = [run for run in project.runs() if run.info.run_name == "compare"]

    assert run.info.run_id == found["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    first = found["points"][0]
    assert run.data.metrics["head_0.5.accuracy"] == first["value"]
    assert run.data.tags["advice"] == found["advice"]
    files = {file.path for file in project.mlflow().list_artifacts(run.info.run_id)}
    assert files == {"compare.json", "compare.csv", "compare.md", "compare.png"}


def test_what_was_trained_is_not_trained_again_and_the_text_says_what_to_use(
    compared: tuple[Project, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, found = compared
    monkeypatch.setattr(compare, "_cell", None)

    told = project.graft_here("compare", "--shares", "0.5,1", "--seeds", "1").stdout

    assert found["advice"] in told
    assert all(line in told for line in found["crossings"])
    assert "images seen" in told


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project.set("finetune", **SHORT)
    return project


def test_an_interrupted_comparison_goes_on_where_it_was(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, asked = compare._cell, []

    def twice(method: str, part: Any, *more: Any) -> Any:
        asked.append((method, part.share))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return cell(method, part, *more)

    monkeypatch.setattr(compare, "_cell", twice)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(here.root, ["head"], [0.4, 0.7, 1.0], 1, None)
    found = compare_methods(here.root, ["head"], [0.4, 0.7, 1.0], 1, None)

    assert asked == [("head", 0.4), ("head", 0.7), ("head", 1.0), ("head", 1.0)]
    assert len(found["points"]) == 3


def test_what_would_pass_the_budget_is_left_out_and_told(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from graft.tasks.finetune.session import Job

    monkeypatch.setattr(Job, "seconds", lambda job: 3600.0)
    found = compare_methods(here.root, ["head", "all"], [1.0], 1, 30.0)

    assert [row["method"] for row in found["points"]] == ["head"]
    assert "would exceed the 30 minutes" in found["left_out"]["all, 1 of the images, seed 0"]


def test_parts_that_are_too_small_are_left_out_and_told(here: Project) -> None:
    found = compare_methods(here.root, ["head"], [0.001, 1.0], 1, None)

    assert [row["share"] for row in found["points"]] == [1.0]
    assert "too few" in found["left_out"]["0.001 of the images, seed 0"]


def test_a_head_that_is_not_linear_is_one_clear_error(here: Project) -> None:
    here.set("head", kind="knn", knn_k=[3])

    with pytest.raises(GraftError, match=r"linear head(.|\n)*head.kind: auto"):
        compare_methods(here.root, ["all"], [1.0], 1, None)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--methods", "head,most"], "most"),
        (["--shares", "0.5,x"], "0.5,x"),
        (["--shares", "2"], "2.0"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_options_that_mean_nothing_are_one_clear_error(finished: Project, words: list[str], named: str) -> None:
    done = finished.graft_here("compare", *words, check=False)

    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_larger_parts_hold_the_smaller_and_choose_by_images_they_do_not_learn_from(compared: Any) -> None:
    from graft.tasks.common.data.feature_set import read_feature_set

    pack = read_feature_set(compared[0].root / "data" / "features")
    small, large = compare._parts(pack, [0.5, 1.0], 1, {})

    assert set(small.rows) < set(large.rows) == set(pack.rows("train"))
    assert not set(large.learned) & set(large.inner)
    assert np.array_equal(np.sort(np.concatenate([large.learned, large.inner])), large.rows)


def test_no_method_at_all_is_refused() -> None:
    with pytest.raises(ParamsError, match="--methods"):
        compare.check([], [1.0], 1)
