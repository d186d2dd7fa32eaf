"""The stage evaluate on a project that detects anomalies."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_anomaly_head
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.evaluate.outputs import TABLES


@pytest.fixture(scope="module")
def evaluated(inspected_paths, tmp_path_factory, run_stage):
    """(the project, the metrics). For reading only."""
    paths = Paths(Path(shutil.copytree(inspected_paths.root, tmp_path_factory.mktemp("evaluated") / "project")))
    return paths, run_stage("evaluate", paths).metrics


@pytest.fixture
def again(evaluated, tmp_path, run_stage):
    """again(keep) evaluates a copy whose test has only the images that `keep(index)` tells."""

    def run(keep):
        paths = Paths(Path(shutil.copytree(evaluated[0].root, tmp_path / "copy")))
        file = paths.features / "index.parquet"
        index = pd.read_parquet(file)
        index.loc[(index["split"] == "test") & ~keep(index), "split"] = "left out"
        write_table(index, file)
        return run_stage("evaluate", paths).metrics, (paths.report / "index.html").read_text(encoding="utf-8")

    return run


def test_the_predictions_are_those_of_the_head_and_the_threshold(evaluated):
    paths, _ = evaluated
    pack, table = read_feature_set(paths.features), pd.read_parquet(paths.report / "predictions.parquet")
    head, told = load_anomaly_head(paths.head), Calibration.load(paths.head)
    score_N = head.output(open_maps(pack, paths).read(pack.rows("test")))[:, 0]
    assert list(table.columns) == ["image_id", "path", "label", "score", "p_value", "anomalous"]
    assert np.allclose(table["score"], score_N, rtol=1e-4)
    assert (table["anomalous"] == (table["score"] > told.threshold)).all()
    assert np.allclose(table["p_value"], head.p_values(table["score"].to_numpy()))


def test_the_metrics_are_those_of_the_predictions(evaluated):
    paths, metrics = evaluated
    table = pd.read_parquet(paths.report / "predictions.parquet")
    good = table["label"] == "good"
    assert metrics["auroc"] == pytest.approx(roc_auc_score(~good, table["score"]))
    assert metrics["detection_rate"] == table["anomalous"][~good].mean()
    assert metrics["false_alarm_rate"] == table["anomalous"][good].mean()
    ends = binomtest(int(table["anomalous"][good].sum()), int(good.sum())).proportion_ci(method="wilson")
    assert (metrics["false_alarm_rate_low"], metrics["false_alarm_rate_high"]) == pytest.approx(tuple(ends))
    assert set(metrics["kinds"]) == {"hole", "scratch"}


def test_pixels_are_judged_by_the_masks_that_there_are(evaluated):
    _, metrics = evaluated
    assert metrics["pixels"]["masks"] == 12
    assert 0 <= metrics["au_pro"] <= 1
    assert 0.5 < metrics["pixel_auroc"] <= 1


def test_the_report_has_a_picture_of_every_part_and_every_table_is_written(evaluated):
    paths, metrics = evaluated
    names = {file.name for file in paths.report.iterdir()}
    assert {"index.html", "kinds.csv", "predictions.parquet", "scores.png", "detection.png", "audit"} <= names
    assert names & {"found.png", "missed.png"}
    assert names & {"false_alarms.png", "nearest.png"}
    assert {file.name for file in paths.plots("evaluate").iterdir()} == set(TABLES)
    headline = read_json(paths.root / "metrics" / "headline.json")
    assert {"auroc", "auroc_low", "false_alarm_rate", "detection_rate", "au_pro", "images"} <= set(headline)
    assert f"{metrics['auroc']:.3f}" in (paths.report / "index.html").read_text(encoding="utf-8")


def test_a_second_run_gives_the_same_bytes(evaluated, run_stage, tree_bytes, tmp_path):
    paths = Paths(Path(shutil.copytree(evaluated[0].root, tmp_path / "copy")))
    before = tree_bytes(paths.report)
    run_stage("evaluate", paths)
    assert tree_bytes(paths.report) == before


def test_without_a_defect_in_the_test_the_report_says_that_detection_is_unknown(again):
    metrics, page = again(lambda index: index["label"] == "good")
    assert (metrics["auroc"], metrics["detection_rate"], metrics["kinds"]) == (None, None, {})
    assert metrics["detection"].startswith("unknown")
    assert metrics["false_alarm_rate"] is not None
    assert "pixel_auroc" not in metrics
    assert "Detection <strong>unknown</strong>" in page


def test_without_a_good_image_in_the_test_the_promise_cannot_be_checked(again):
    metrics, page = again(lambda index: index["label"] == "hole")
    assert (metrics["false_alarm_rate"], metrics["promise"]["kept"]) == (None, None)
    assert "the promise cannot be checked" in page


def test_one_defect_in_the_test_is_enough_for_a_report(again):
    metrics, _ = again(lambda index: (index["label"] == "good") | index["path"].str.endswith("scratch/000.png"))
    assert metrics["defect_images"] == 1
    assert metrics["auroc_high"] - metrics["auroc_low"] > 0.2


def test_fine_tuning_does_not_run(evaluated, run_stage, tmp_path):
    paths = Paths(Path(shutil.copytree(evaluated[0].root, tmp_path / "copy")))
    run_stage("finetune", paths, mode="on")
    decision = read_json(paths.finetune / "decision.json")
    assert (decision["ran"], decision["chosen"]) == (False, "head")
    assert decision["reason"] == "the task anomaly has no fine-tuning"
