"""Several classes an image, and numbers, from the images to a registered model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from projects import Project, draw_shapes, draw_turned, make_project
from served import check_served

from graft.tasks.common.core.paths import STAGES
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.register.serving import ImageClassifier


def reproduced(root: Path, task: str, draw: Callable[[Path, int], Path], images: int) -> Project:
    project = make_project(root, head={"task": task}, preprocess={"val_fraction": 0.25, "test_fraction": 0.25})
    draw(project.root / "data" / "raw", images)
    project.dvc("add", "data/raw")
    assert project.repro() == list(STAGES)
    return project


def check_record(project: Project, main: str, columns: list[str]) -> None:
    """MLflow has the test's metrics, on the parent and on the model, whose signature is what it predicts."""
    test = project.json("metrics/evaluate.json")
    runs = {run.data.tags.get("graft.stage", "parent"): run for run in project.runs()}
    for key in (main, f"{main}_low", f"{main}_high"):
        assert runs["parent"].data.metrics[f"test_{key}"] == test[key]
        assert runs["evaluate"].data.metrics[key] == test[key]
    version = project.mlflow().get_model_version("graft", "1")
    assert version.tags["task"] == test["task"]
    assert version.tags[f"test_{main}"] == f"{test[main]:.4f}"
    assert sorted(version.aliases) == ["challenger", "champion"]
    mlflow.set_tracking_uri(f"sqlite:///{project.root}/mlflow.db")
    model = mlflow.models.get_model_info("models:/graft/1")
    assert model.signature.outputs.input_names() == columns
    check_served("models:/graft/1", model.signature.outputs)


def check_pages(project: Project, title: str, plots: list[str]) -> None:
    """The report, the summary, and DVC's plots tell of this task, and of no other."""
    page = (project.root / "report" / "index.html").read_text(encoding="utf-8")
    assert f"Test {title}" in page
    assert title in project.graft_here("summary").stdout
    shown = project.dvc("plots", "show", "--out", "shown")
    assert "failed" not in shown.stdout + shown.stderr
    text = (project.root / "shown" / "index.html").read_text(encoding="utf-8")
    assert all(plot in text for plot in plots)


def check_ranked(project: Project, metric: str) -> None:
    """`graft rank` compares by the metric of this task."""
    found = json.loads(project.graft_here("rank", "test_efficientnet", "--json").stdout)
    (row,) = found["candidates"]
    assert found["metric"] == metric
    assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    assert row["as_good"] == "best"


def answers(project: Project) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """What the package says of the test images, and what evaluate saw."""
    seen = pd.read_parquet(project.root / "report" / "predictions.parquet")
    model = ImageClassifier(project.root / "models" / "package")
    return model.predict([project.root / "data" / "raw" / path for path in seen["path"]]), seen


def test_several_classes_run_from_the_table_to_the_registered_model(tmp_path: Path) -> None:
    project = reproduced(tmp_path / "project", "multilabel", draw_shapes, 60)

    test = project.json("metrics/evaluate.json")
    told, seen = answers(project)
    truth_NK = np.array([[name in label.split("|") for name in ("bar", "disc", "square")] for label in seen["label"]])
    p_NK = seen[["p_bar", "p_disc", "p_square"]].to_numpy()
    share_K = truth_NK.mean(axis=0)
    assert test["mean_average_precision"] > share_K.mean() + 0.2, "one that knows nothing ranks at random"
    assert test["hamming_loss"] < np.minimum(share_K, 1 - share_K).mean(), "one that says the same of all images"
    assert test["hamming_loss"] == pytest.approx(((p_NK >= 0.5) != truth_NK).mean())
    assert test["mean_average_precision_low"] <= test["mean_average_precision"] <= test["mean_average_precision_high"]
    assert set(test["per_class"]) == {"bar", "disc", "square"}
    assert "" in set(read_manifest(project.root / "data" / "manifest")["label"])
    assert ["|".join(one["labels"]) for one in told] == list(seen["predicted"])
    told_NK = [[one["probabilities"][name] for name in ("bar", "disc", "square")] for one in told]
    assert np.allclose(told_NK, p_NK, atol=1e-4)
    check_record(project, "mean_average_precision", ["labels", "probabilities", "typicality"])
    check_ranked(project, "mean_average_precision")
    check_pages(project, "mean average precision", ["Average precision by class", "Images by label"])


def test_numbers_run_from_the_table_to_the_registered_model(tmp_path: Path) -> None:
    project = reproduced(tmp_path / "project", "regression", draw_turned, 60)

    test = project.json("metrics/evaluate.json")
    told, seen = answers(project)
    spread = np.abs(seen["label"] - seen["label"].median()).mean()
    assert test["r2"] > 0.5
    assert test["mae"] < 0.5 * spread, "one that says the same of all images"
    assert test["mae"] == pytest.approx(seen["error"].abs().mean())
    assert test["rmse_low"] <= test["rmse"] <= test["rmse_high"]
    assert test["spearman"] > 0.7
    manifest = read_manifest(project.root / "data" / "manifest").set_index("path")
    assert list(manifest.loc[seen["path"], "label"].astype(float)) == list(seen["label"])
    assert [one["value"] for one in told] == pytest.approx(list(seen["predicted"]), abs=1e-2)
    check_record(project, "r2", ["value", "low", "high", "typicality"])
    check_ranked(project, "r2")
    check_pages(project, "R²", ["Predicted against true", "Images by label"])
