import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table


def leak(paths, *, count=1, split="test"):
    """Writes down that the first images of a split are also among the training images; which images."""
    pack = read_feature_set(paths.features)
    leaked = pack.index.iloc[pack.rows(split)].head(count)
    write_table(leaked[["image_id", "path", "split"]], paths.audit / "leaked.parquet")
    return set(leaked["image_id"])


def test_without_leaks_there_is_nothing_to_tell(run_stage, paths):
    assert "without_leaks" not in run_stage("evaluate", paths).metrics


def test_the_metrics_without_the_leaked_images_are_those_of_the_others(paths, run_stage):
    leaked = leak(paths, count=2)
    metrics = run_stage("evaluate", paths).metrics
    table = pd.read_parquet(paths.report / "predictions.parquet")
    left = table[~table["image_id"].isin(leaked)]
    found = metrics["without_leaks"]
    assert (found["images"], found["leaked"]) == (len(table) - 2, 2)
    assert found["accuracy"] == pytest.approx((left["predicted"] == left["label"]).mean())
    assert found["log_loss"] == pytest.approx(-np.log([row[f"p_{row['label']}"] for _, row in left.iterrows()]).mean())


def test_the_metrics_of_all_images_stay_what_they_are(paths, run_stage):
    before = run_stage("evaluate", paths).metrics
    leak(paths)
    after = run_stage("evaluate", paths).metrics
    assert {key: after[key] for key in before} == before


def test_leaks_into_validation_change_nothing(paths, run_stage):
    leak(paths, split="val")
    assert "without_leaks" not in run_stage("evaluate", paths).metrics


def test_where_all_test_images_are_leaks_there_are_no_metrics_without(paths, run_stage):
    leak(paths, count=1000)
    assert set(run_stage("evaluate", paths).metrics["without_leaks"]) == {"images", "leaked"}
    assert "No test image is left without them." in (paths.report / "index.html").read_text(encoding="utf-8")


def test_the_report_has_the_audit_in_it_and_a_link_to_it(paths, run_stage, tree_bytes):
    run_stage("evaluate", paths)
    assert tree_bytes(paths.report / "audit") == tree_bytes(paths.audit)
    assert 'href="audit/index.html"' in (paths.report / "index.html").read_text(encoding="utf-8")
