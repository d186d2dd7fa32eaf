import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.data.task import METRICS
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.common.images.transform import EvalTransform, load


def predictions(paths):
    return pd.read_parquet(paths.report / "predictions.parquet")


def rows_of_test(paths):
    pack = read_feature_set(paths.features)
    return pack.rows("test")


@pytest.fixture
def often_wrong(paths):
    """A head that is sure of the first class, surer of some images than of others."""
    head = load_linear_head(paths.head)
    LinearHead(head.weight * 0.01, np.float32([2, 0, 0]), head.classes).save(paths.head)
    return paths


def test_only_test_images_are_predicted_and_all_of_them(finished_paths):
    pack = read_feature_set(finished_paths.features)
    assert list(predictions(finished_paths)["image_id"]) == list(pack.index["image_id"].iloc[pack.rows("test")])


def test_a_prediction_is_the_heads_calibrated(finished_paths):
    pack, table = read_feature_set(finished_paths.features), predictions(finished_paths)
    head_NK = load_linear_head(finished_paths.head).predict_proba(pack.stored_ND[pack.rows("test")])
    p_NK = Calibration.load(finished_paths.head).apply(head_NK)
    assert not np.array_equal(p_NK, head_NK)
    assert np.allclose(table[["p_blue", "p_green", "p_red"]].to_numpy(), p_NK)
    assert list(table["predicted"]) == [pack.classes[k] for k in p_NK.argmax(axis=1)]
    assert np.allclose(table["score"], p_NK.max(axis=1))


def test_the_metrics_are_those_of_the_predictions(often_wrong, run_stage):
    metrics = run_stage("evaluate", often_wrong).metrics
    headline = read_json(often_wrong.root / "metrics" / "headline.json")
    assert headline == {key: metrics[key] for key in headline}
    assert {"accuracy", "accuracy_low", "accuracy_high", "log_loss", "images"} <= {*headline}
    table = predictions(often_wrong)
    right = (table["predicted"] == table["label"]).mean()
    chosen = [row[f"p_{row['label']}"] for _, row in table.iterrows()]
    assert metrics["accuracy"] == pytest.approx(right)
    assert metrics["log_loss"] == pytest.approx(-np.log(chosen).mean())
    assert metrics["per_class"]["blue"]["recall"] == 1.0
    assert metrics["per_class"]["blue"]["precision"] == pytest.approx(right)
    assert metrics["per_class"]["red"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": int((table["label"] == "red").sum()),
    }


def test_the_interval_contains_the_accuracy(often_wrong, run_stage):
    metrics = run_stage("evaluate", often_wrong).metrics
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert metrics["accuracy_low"] < metrics["accuracy_high"]


def test_every_metric_of_the_task_has_an_interval_and_a_baseline(often_wrong, run_stage):
    metrics = run_stage("evaluate", often_wrong).metrics
    for metric in METRICS["classification"]:
        value, low, high = (metrics[key] for key in metric.keys)
        assert low <= value <= high
        assert metrics["baseline"][metric.key] <= max(value, 0.6)


def test_the_baseline_answers_the_most_frequent_class_of_the_training_images(often_wrong, run_stage):
    pack = read_feature_set(often_wrong.features)
    most = pack.index["label"][pack.rows("train")].mode()[0]
    metrics = run_stage("evaluate", often_wrong).metrics
    assert metrics["baseline"]["accuracy"] == pytest.approx((predictions(often_wrong)["label"] == most).mean())
    assert (metrics["baseline"]["auroc"], metrics["baseline"]["kappa"]) == (0.5, 0.0)


def test_each_class_is_in_a_table_with_intervals(often_wrong, run_stage):
    metrics = run_stage("evaluate", often_wrong).metrics
    table = pd.read_csv(often_wrong.report / "classes.csv").set_index("class")
    for name, found in metrics["per_class"].items():
        assert table["recall"][name] == pytest.approx(found["recall"])
        assert table["recall_low"][name] <= table["recall"][name] <= table["recall_high"][name]
        assert table["average_precision_low"][name] < table["average_precision_high"][name]
        assert table["images"][name] == found["support"]


def test_groups_are_counted_and_widen_the_interval(often_wrong, run_stage):
    alone = run_stage("evaluate", often_wrong).metrics
    file = often_wrong.features / "index.parquet"
    index = pd.read_parquet(file)
    write_table(index.assign(group=[f"patient {row // 5}" for row in range(len(index))]), file)
    grouped = run_stage("evaluate", often_wrong).metrics
    assert (alone["units"], alone["unit"]) == (alone["images"], "picture")
    assert (grouped["units"], grouped["unit"]) == (len({int(row) // 5 for row in rows_of_test(often_wrong)}), "group")
    assert grouped["accuracy"] == alone["accuracy"]
    assert grouped["accuracy_high"] - grouped["accuracy_low"] > alone["accuracy_high"] - alone["accuracy_low"]


def test_a_second_run_gives_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.report), tree_bytes(paths.plots("evaluate"))
    run_stage("evaluate", paths)
    assert (tree_bytes(paths.report), tree_bytes(paths.plots("evaluate"))) == before


def test_the_report_has_a_page_its_pictures_and_the_predictions(finished_paths, names_in):
    assert names_in(finished_paths.report) == {
        "index.html",
        "confusion.png",
        "reliability.png",
        "risk_coverage.png",
        "precision_recall.png",
        "roc.png",
        "classes.csv",
        "misclassified.png",
        "saliency.png",
        "predictions.parquet",
        "audit",
    }


def test_misclassified_examples_are_shown_most_confident_first(often_wrong, run_stage, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        "graft.tasks.evaluate.classification.misclassified_plot", lambda table, *_: shown.update(table=table)
    )
    run_stage("evaluate", often_wrong, misclassified=3)
    table = predictions(often_wrong)
    wrong = table[table["predicted"] != table["label"]]
    assert len(shown["table"]) == 3
    assert list(shown["table"]["score"]) == sorted(wrong["score"], reverse=True)[:3]


def test_the_plots_can_be_drawn_from_tables(finished_paths):
    table = pd.read_csv(finished_paths.plots("evaluate") / "confusion.csv")
    assert list(table["actual"]) == list(predictions(finished_paths)["label"])
    assert len(pd.read_csv(finished_paths.plots("evaluate") / "reliability.csv")) > 0


@pytest.mark.parametrize("name", ["average_precision.csv", "predicted.csv"])
def test_a_table_of_another_task_has_columns_and_no_rows(finished_paths, name):
    table = pd.read_csv(finished_paths.plots("evaluate") / name)
    assert len(table.columns) >= 2
    assert len(table) == 0


@pytest.fixture
def withholding(often_wrong):
    """A head that abstains from about half of the test images."""
    pack = read_feature_set(often_wrong.features)
    p_NK = load_linear_head(often_wrong.head).predict_proba(pack.stored_ND[pack.rows("test")])
    threshold = float(np.median(Calibration(temperature=2.0).apply(p_NK).max(axis=1)))
    Calibration(temperature=2.0, threshold=threshold, max_error=0.2, confidence=0.9).save(often_wrong.head)
    return often_wrong


def test_abstention_is_told_with_what_it_costs_and_what_it_buys(withholding, run_stage):
    told = run_stage("evaluate", withholding).metrics["abstention"]
    table, calibration = predictions(withholding), Calibration.load(withholding.head)
    answered = table[~table["abstain"]]
    assert list(table["abstain"]) == list(table["score"] <= calibration.threshold)
    assert 0 < len(answered) < len(table)
    assert (told["threshold"], told["max_error"]) == (calibration.threshold, 0.2)
    assert (told["answered"], told["coverage"]) == (len(answered), len(answered) / len(table))
    assert told["error"] == pytest.approx((answered["predicted"] != answered["label"]).mean())
    assert told["error_low"] <= told["error"] <= told["error_high"]


def test_metrics_before_calibration_are_those_of_the_head_alone(withholding, run_stage):
    metrics = run_stage("evaluate", withholding).metrics
    Calibration().save(withholding.head)
    plain = run_stage("evaluate", withholding).metrics
    assert metrics["temperature"] == 2.0
    assert metrics["log_loss_before"] == plain["log_loss"] == plain["log_loss_before"]
    assert metrics["calibration_error_before"] == plain["calibration_error"]
    assert metrics["log_loss"] != plain["log_loss"]
    assert "abstention" not in plain
    assert "abstain" not in predictions(withholding)


def test_both_reliability_curves_and_errors_against_coverage_can_be_drawn_from_tables(withholding, run_stage):
    run_stage("evaluate", withholding)
    read = lambda name: pd.read_csv(withholding.plots("evaluate") / name)  # noqa: E731
    assert read("reliability.csv")["confidence"].max() < read("reliability_before.csv")["confidence"].max()
    curve, table = read("risk_coverage.csv"), predictions(withholding)
    assert curve["coverage"].iloc[-1] == 1.0
    assert curve["error"].iloc[-1] == pytest.approx((table["predicted"] != table["label"]).mean())


def test_training_and_validation_images_have_no_part_in_the_test(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.report)
    features_ND = np.load(paths.features / "features.npy")
    features_ND[read_feature_set(paths.features).rows("train", "val")] = 0
    np.save(paths.features / "features.npy", features_ND)
    run_stage("evaluate", paths)
    assert tree_bytes(paths.report) == before


@pytest.fixture
def tuned(tuned_paths, tmp_path):
    """A copy of the fine-tuned project, in which the fine-tuned candidate was chosen."""
    paths = Paths(tmp_path / "project")
    shutil.copytree(tuned_paths.root, paths.root)
    decision = read_json(paths.finetune / "decision.json")
    write_json(paths.finetune / "decision.json", {**decision, "chosen": "finetune"})
    return paths


def test_every_candidate_is_scored_and_the_report_is_about_the_chosen_one(tuned, run_stage):
    metrics = run_stage("evaluate", tuned).metrics
    assert set(metrics["candidates"]) == {"head", "finetune"}
    assert metrics["candidate"] == "finetune"
    assert metrics["log_loss"] == metrics["candidates"]["finetune"]["log_loss"]


def test_the_fine_tuned_candidate_is_its_own_graph_and_head(tuned, run_stage):
    run_stage("evaluate", tuned)
    pack = read_feature_set(tuned.features)
    transform = EvalTransform.from_dict(pack.fingerprint["transform"])
    table = predictions(tuned)
    pixels = np.stack([load(tuned.raw / path, None, transform, pack.reading) for path in table["path"]])
    features_ND = Engine(tuned.finetune / "graph" / "graph.xml")(pixels)
    expected = Calibration.load(tuned.finetune).apply(load_linear_head(tuned.finetune).predict_proba(features_ND))
    assert np.allclose(table[["p_blue", "p_green", "p_red"]].to_numpy(), expected, atol=1e-4)


def test_the_choice_does_not_follow_the_test_metrics(tuned, run_stage):
    head = load_linear_head(tuned.finetune)
    LinearHead(-head.weight, -head.bias, head.classes).save(tuned.finetune)
    metrics = run_stage("evaluate", tuned).metrics
    assert metrics["candidates"]["finetune"]["accuracy"] < metrics["candidates"]["head"]["accuracy"]
    assert metrics["candidate"] == "finetune"


def test_evaluating_a_frozen_head_without_looks_imports_no_torch(paths, repository):
    program = (
        "import sys, pathlib\n"
        "from graft.tasks.common.core.paths import Paths\n"
        "from graft.tasks.evaluate.params import EvaluateParams\n"
        "from graft.tasks.evaluate.stage import run\n"
        "run(EvaluateParams(saliency=0), Paths(pathlib.Path(sys.argv[1])))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(paths.root)], cwd=repository, check=True)
