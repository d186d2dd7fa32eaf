import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError, GraftError, ParamsError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.data.task import METRICS
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_head, load_linear_head
from graft.tasks.common.scoring.classification import accuracy, log_loss
from graft.tasks.common.scoring.temperature import calibrate


@pytest.fixture
def unbalanced(paths):
    """A pack of features that overlap, of which one class has far more images than the others."""
    rng = np.random.default_rng(0)
    label = np.repeat(["a", "b", "c"], [160, 20, 20])
    centre = {"a": 0.0, "b": 1.0, "c": -1.0}
    features_ND = (np.array([centre[name] for name in label])[:, None] + rng.normal(size=(200, 8))).astype(np.float32)
    index = pd.DataFrame(
        {
            "image_id": [f"{n:032x}" for n in range(200)],
            "path": [f"{n}.png" for n in range(200)],
            "label": label,
            "task": "classification",
            "split": np.tile(["train", "train", "train", "val", "test"], 40),
            "group": None,
            "weight": 1.0,
            "pixels": [f"{n:032x}" for n in range(200)],
        }
    )
    np.save(paths.features / "features.npy", features_ND)
    np.save(paths.features / "views.npy", features_ND[:0])
    write_table(index, paths.features / "index.parquet")
    return paths


def test_colours_that_are_clearly_apart_are_told_apart(finished_paths):
    pack, head = read_feature_set(finished_paths.features), load_linear_head(finished_paths.head)
    rows = np.arange(len(pack.index))
    assert (head.predict_proba(pack.stored_ND).argmax(axis=1) == pack.labels(rows)).mean() > 0.9


def test_the_classes_of_the_head_are_those_of_the_pack(finished_paths):
    assert load_linear_head(finished_paths.head).classes == ["blue", "green", "red"]


def test_a_second_run_gives_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.head), tree_bytes(paths.plots("head"))
    run_stage("head", paths)
    assert (tree_bytes(paths.head), tree_bytes(paths.plots("head"))) == before


def test_training_the_head_leaves_the_backbone_alone_to_the_bit(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.cache), tree_bytes(paths.features)
    run_stage("head", paths, class_weight="balanced")
    assert (tree_bytes(paths.cache), tree_bytes(paths.features)) == before


def test_the_head_never_sees_a_test_image(unbalanced, run_stage, tree_bytes):
    run_stage("head", unbalanced)
    before = tree_bytes(unbalanced.head)
    features_ND = np.load(unbalanced.features / "features.npy")
    features_ND[read_feature_set(unbalanced.features).rows("test")] = 1e6
    np.save(unbalanced.features / "features.npy", features_ND)
    run_stage("head", unbalanced)
    assert tree_bytes(unbalanced.head) == before


def test_the_refitted_head_learns_from_validation_images_and_the_selected_one_does_not(unbalanced, run_stage):
    run_stage("head", unbalanced, strengths=1)
    final, selected = (load_linear_head(unbalanced.head, name) for name in ("head", "selected"))
    features_ND = np.load(unbalanced.features / "features.npy")
    features_ND[read_feature_set(unbalanced.features).rows("val")] *= -1
    np.save(unbalanced.features / "features.npy", features_ND)
    run_stage("head", unbalanced, strengths=1)
    assert np.array_equal(load_linear_head(unbalanced.head, "selected").weight, selected.weight)
    assert not np.allclose(load_linear_head(unbalanced.head, "head").weight, final.weight)


def test_without_a_refit_the_two_heads_are_one(unbalanced, run_stage):
    run_stage("head", unbalanced, refit=False)
    final, selected = (load_linear_head(unbalanced.head, name) for name in ("head", "selected"))
    assert np.array_equal(final.weight, selected.weight)
    assert np.array_equal(final.bias, selected.bias)


def test_balanced_classes_find_more_of_the_rare_ones(unbalanced, run_stage):
    pack = read_feature_set(unbalanced.features)
    rare = {}
    for class_weight in ("none", "balanced"):
        run_stage("head", unbalanced, class_weight=class_weight)
        predicted = load_linear_head(unbalanced.head).predict_proba(pack.stored_ND).argmax(axis=1)
        rare[class_weight] = (predicted > 0).sum()
    assert rare["balanced"] > rare["none"]


def test_balanced_weights_change_nothing_where_classes_are_balanced(unbalanced, run_stage):
    index = pd.read_parquet(unbalanced.features / "index.parquet").iloc[:180]
    index = index.assign(label=np.repeat(["a", "b", "c"], 60), split=np.tile(["train", "train", "val"], 60))
    np.save(unbalanced.features / "features.npy", np.load(unbalanced.features / "features.npy")[:180])
    write_table(index, unbalanced.features / "index.parquet")
    heads = []
    for class_weight in ("none", "balanced"):
        run_stage("head", unbalanced, class_weight=class_weight)
        heads.append(load_linear_head(unbalanced.head).weight)
    assert np.allclose(*heads, atol=1e-4)


def test_an_images_weight_counts(unbalanced, run_stage):
    run_stage("head", unbalanced)
    before = load_linear_head(unbalanced.head).bias
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    write_table(index.assign(weight=np.where(index["label"] == "a", 0.1, 1.0)), unbalanced.features / "index.parquet")
    run_stage("head", unbalanced)
    after = load_linear_head(unbalanced.head).bias
    assert after[0] - after[1:].mean() < before[0] - before[1:].mean()


def test_validations_probabilities_are_those_of_the_selected_head(finished_paths):
    pack = read_feature_set(finished_paths.features)
    table = pd.read_parquet(finished_paths.head / "validation.parquet")
    val = pack.rows("val")
    expected = load_linear_head(finished_paths.head, "selected").predict_proba(pack.stored_ND[val])
    assert list(table["image_id"]) == list(pack.index["image_id"].iloc[val])
    assert np.allclose(table[["p_0", "p_1", "p_2"]].to_numpy(), expected)


def test_temperature_and_threshold_are_those_of_validations_probabilities(unbalanced, run_stage):
    record = run_stage("head", unbalanced, max_error=0.3, max_error_confidence=0.8, folds=0)
    pack, table = read_feature_set(unbalanced.features), pd.read_parquet(unbalanced.head / "validation.parquet")
    val = pack.rows("val")
    expected = calibrate(
        table[["p_0", "p_1", "p_2"]].to_numpy(),
        pack.labels(val),
        pack.weights(val),
        "classification",
        scale=True,
        max_error=0.3,
        confidence=0.8,
    )
    assert Calibration.load(unbalanced.head) == expected
    told = record.metrics["calibration"]
    assert (told["temperature"], told["threshold"]) == (expected.temperature, expected.threshold)
    assert told["coverage"] == expected.metrics["coverage"]
    assert unbalanced.head / "calibration.json" in record.files


def test_the_heads_own_numbers_are_not_calibrated(unbalanced, run_stage):
    run_stage("head", unbalanced, calibrate=False)
    before = {name: load_linear_head(unbalanced.head, name) for name in ("head", "selected")}
    run_stage("head", unbalanced, calibrate=True)
    assert Calibration.load(unbalanced.head).temperature != 1.0
    for name, head in before.items():
        assert np.array_equal(load_linear_head(unbalanced.head, name).weight, head.weight)


def test_without_calibration_the_temperature_is_one(unbalanced, run_stage):
    run_stage("head", unbalanced, calibrate=False)
    assert Calibration.load(unbalanced.head) == Calibration()


def test_an_error_that_cannot_be_promised_stops_the_stage_and_leaves_the_earlier_head(
    unbalanced, run_stage, tree_bytes
):
    run_stage("head", unbalanced)
    before = tree_bytes(unbalanced.head)
    with pytest.raises(GraftError, match=r"head\.max_error"):
        run_stage("head", unbalanced, max_error=0.001)
    assert tree_bytes(unbalanced.head) == before


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1])
def test_an_error_must_be_a_share(run_stage, paths, value):
    with pytest.raises(ValueError, match="max_error"):
        run_stage("head", paths, max_error=value)


def test_a_share_of_wrong_answers_is_refused_for_numbers_before_anything_is_trained(unbalanced, run_stage):
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    write_table(index.assign(task="regression", label="1.5"), unbalanced.features / "index.parquet")
    with pytest.raises(ParamsError, match=r"head\.max_error"):
        run_stage("head", unbalanced, max_error=0.1)


@pytest.mark.parametrize("kind", ["logistic", "knn", "ridge", "mlp"])
def test_every_kind_writes_a_head_that_predicts_and_the_same_bytes_again(unbalanced, run_stage, tree_bytes, kind):
    changes = {"kind": kind, "mlp_epochs": 2, "mlp_hidden": 8, "knn_k": [1, 5]}
    record = run_stage("head", unbalanced, **changes)
    assert record.facts["kind"] == kind
    p_NK = load_head(unbalanced.head).predict_proba(read_feature_set(unbalanced.features).stored_ND)
    assert p_NK.shape == (200, 3)
    before = tree_bytes(unbalanced.head), tree_bytes(unbalanced.plots("head"))
    run_stage("head", unbalanced, **changes)
    assert (tree_bytes(unbalanced.head), tree_bytes(unbalanced.plots("head"))) == before


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("logistic", {"l2"}),
        ("ridge", {"l2"}),
        ("knn", {"k"}),
        ("mlp", {"dropout", "weight_decay", "epochs"}),
    ],
)
def test_the_path_has_a_row_for_each_candidate_tried(unbalanced, run_stage, kind, settings):
    record = run_stage("head", unbalanced, kind=kind, mlp_epochs=2, mlp_hidden=8, knn_k=[1, 5])
    table = pd.read_csv(unbalanced.plots("head") / "path.csv")
    metrics = ["train_loss", "val_loss", "val_accuracy", "iterations", "converged"]
    assert next(iter(table)) == "along"
    assert set(table) == {"along", *settings, *metrics}
    assert len(table) == record.metrics["tried"]
    chosen = table[table["val_loss"] == table["val_loss"].min()].iloc[0]
    assert {name: record.metrics[name] for name in settings} == pytest.approx({name: chosen[name] for name in settings})
    assert [value for _, value in record.curves["path_val_loss"]] == pytest.approx(list(table["val_loss"]))


def test_the_path_is_drawn_along_the_logarithm_of_the_strength(paths, run_stage):
    run_stage("head", paths)
    table = pd.read_csv(paths.plots("head") / "path.csv")
    assert np.allclose(10 ** table["along"], table["l2"])


def test_the_metrics_are_those_of_the_chosen_candidate(paths, run_stage):
    record = run_stage("head", paths)
    table = pd.read_csv(paths.plots("head") / "path.csv")
    assert record.metrics["val_log_loss"] == pytest.approx(table["val_loss"].min())


def test_the_settings_chosen_stand_beside_both_heads(unbalanced, run_stage):
    record = run_stage("head", unbalanced, kind="knn", knn_k=[3, 9])
    for name in ("head", "selected"):
        facts = json.loads((unbalanced.head / f"{name}.json").read_text(encoding="utf-8"))
        assert (facts["kind"], facts["k"]) == ("knn", record.metrics["k"])


def test_cross_validation_writes_what_each_image_was_given_while_it_was_held_out(unbalanced, run_stage):
    record = run_stage("head", unbalanced, folds=4)
    pack, table = read_feature_set(unbalanced.features), pd.read_parquet(unbalanced.head / "validation.parquet")
    both = pack.rows("train", "val")
    assert list(table["image_id"]) == list(pack.index["image_id"].iloc[both])
    assert set(table["fold"]) == {0, 1, 2, 3}
    assert (record.metrics["folds"], record.metrics["val_images"]) == (4, len(pack.rows("val")))
    p_NK = table[["p_0", "p_1", "p_2"]].to_numpy()
    assert record.metrics["val_log_loss"] == pytest.approx(log_loss(p_NK, pack.labels(both)))
    assert record.metrics["val_accuracy"] == accuracy(p_NK, pack.labels(both))


def test_after_cross_validation_the_selected_head_has_not_learned_validation_images(unbalanced, run_stage):
    run_stage("head", unbalanced, folds=4, strengths=1)
    selected = load_linear_head(unbalanced.head, "selected")
    run_stage("head", unbalanced, folds=0, strengths=1)
    assert np.allclose(load_linear_head(unbalanced.head, "selected").weight, selected.weight, atol=1e-3)


def test_with_few_validation_images_the_default_cross_validates(unbalanced, run_stage):
    assert run_stage("head", unbalanced, folds="auto").metrics["folds"] == 5


def test_numbers_are_learned_and_their_error_told_in_their_unit(unbalanced, run_stage):
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    number = 1000 + 50 * np.load(unbalanced.features / "features.npy")[:, 2]
    write_table(index.assign(task="regression", label=number.astype(str)), unbalanced.features / "index.parquet")
    record = run_stage("head", unbalanced, l2_min=1e-6, strengths=15)
    assert record.facts["kind"] == "ridge"
    assert record.metrics["val_rmse"] < 1
    assert {"val_accuracy", "val_log_loss"}.isdisjoint(record.metrics)
    table = pd.read_parquet(unbalanced.head / "validation.parquet")
    error = table["predicted"] - table["label"].astype(float)
    assert record.metrics["val_rmse"] == pytest.approx((error**2).mean() ** 0.5)
    assert "val_rmse" in pd.read_csv(unbalanced.plots("head") / "path.csv")


def test_several_classes_an_image_have_a_probability_each(unbalanced, run_stage):
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    label = np.where(np.arange(200) % 3 == 0, "a|b", np.where(np.arange(200) % 3 == 1, "a", ""))
    write_table(index.assign(task="multilabel", label=label), unbalanced.features / "index.parquet")
    run_stage("head", unbalanced)
    head = load_head(unbalanced.head)
    assert (head.task, head.classes) == ("multilabel", ["a", "b"])
    table = pd.read_parquet(unbalanced.head / "validation.parquet")
    assert table["p_0"].mean() == pytest.approx(2 / 3, abs=0.15)


def test_a_weighed_head_is_calibrated_to_the_true_shares_and_decides_by_its_weights(unbalanced, run_stage):
    record = run_stage("head", unbalanced, class_weight="balanced", select="balanced_accuracy", folds=4)
    calibration = Calibration.load(unbalanced.head)
    p_NK = calibration.apply(pd.read_parquet(unbalanced.head / "validation.parquet")[["p_0", "p_1", "p_2"]].to_numpy())
    assert p_NK.mean(axis=0) == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert calibration.class_weights == pytest.approx([10 / 24, 10 / 3, 10 / 3], rel=0.05)
    path = pd.read_csv(unbalanced.plots("head") / "path.csv")
    assert path.loc[path["val_balanced_accuracy"].idxmax(), "l2"] == pytest.approx(record.metrics["l2"])
    assert record.metrics["val_balanced_accuracy"] > 0.5
    assert {f"val_{metric.key}" for metric in METRICS["classification"]} <= set(record.metrics)


def test_numbers_get_an_interval_from_their_held_out_errors(unbalanced, run_stage):
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    number = 5 + np.random.default_rng(0).normal(size=200)
    write_table(index.assign(task="regression", label=number.astype(str)), unbalanced.features / "index.parquet")
    run_stage("head", unbalanced, folds=4, strengths=3, interval_confidence=0.8)
    table = pd.read_parquet(unbalanced.head / "validation.parquet")
    error_N = (table["predicted"] - table["label"].astype(float)).abs()
    assert Calibration.load(unbalanced.head).margin == np.sort(error_N)[int(np.ceil(0.8 * 161)) - 1]


def test_images_of_a_group_count_as_one_in_intervals(unbalanced, run_stage, capsys):
    index = pd.read_parquet(unbalanced.features / "index.parquet")
    groups = np.array([f"patient {n // 25}" for n in range(200)])
    number = np.arange(200) % 7
    write_table(
        index.assign(task="regression", label=number.astype(str), group=groups), unbalanced.features / "index.parquet"
    )
    run_stage("head", unbalanced, folds=4, strengths=3)
    assert Calibration.load(unbalanced.head).margin is None
    assert "no intervals of 90% confidence: that needs at least 9" in capsys.readouterr().err


def test_a_class_weight_of_an_unknown_class_is_refused_and_leaves_the_earlier_head(unbalanced, run_stage, tree_bytes):
    run_stage("head", unbalanced)
    before = tree_bytes(unbalanced.head)
    with pytest.raises(ParamsError, match="no class is called d"):
        run_stage("head", unbalanced, class_weight={"a": 1, "b": 1, "c": 1, "d": 1})
    assert tree_bytes(unbalanced.head) == before


def test_a_larger_weight_of_a_class_finds_more_of_it(unbalanced, run_stage):
    pack = read_feature_set(unbalanced.features)
    found = {}
    for weight in (1, 20):
        run_stage("head", unbalanced, class_weight={"a": 1, "b": weight, "c": 1})
        found[weight] = (load_head(unbalanced.head).predict(pack.stored_ND) == 1).sum()
    assert found[20] > found[1]


@pytest.mark.parametrize("steps", [1, 1000])
def test_a_chosen_candidate_that_did_not_converge_is_said(unbalanced, run_stage, capsys, steps):
    run_stage("head", unbalanced, max_iterations=steps)
    assert ("`head.max_iterations`" in capsys.readouterr().err) == (steps == 1)


@pytest.mark.parametrize(("bounds", "key"), [((1e-3, 1e-3), None), ((10.0, 1.0), "l2_min"), ((1e-9, 1e-12), "l2_max")])
def test_a_best_strength_at_an_end_of_the_path_is_said(unbalanced, run_stage, capsys, bounds, key):
    run_stage("head", unbalanced, l2_max=bounds[0], l2_min=bounds[1], strengths=1 if key is None else 3)
    said = capsys.readouterr().err
    assert (f"head.{key}" in said) if key else ("the best; try" not in said)


def test_no_features_name_the_stage_that_makes_them(tmp_path, run_stage):
    with pytest.raises(DataError, match="features"):
        run_stage("head", Paths(tmp_path))


def test_the_head_is_trained_without_torch(paths, repository):
    program = (
        "import sys, pathlib\n"
        "from graft.tasks.common.core.paths import Paths\n"
        "from graft.tasks.head.params import HeadParams\n"
        "from graft.tasks.head.stage import run\n"
        "run(HeadParams(strengths=2), Paths(pathlib.Path(sys.argv[1])))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(paths.root)], cwd=repository, check=True)


def test_later_stages_learn_the_weights_of_the_classes_and_the_deciding_metric(unbalanced, run_stage):
    run_stage("head", unbalanced)
    plain = json.loads((unbalanced.head / "selected.json").read_text())
    run_stage("head", unbalanced, class_weight="balanced")
    weighed = json.loads((unbalanced.head / "selected.json").read_text())
    assert (plain["metric"], plain["class_weights"]) == ("accuracy", None)
    assert weighed["metric"] == "balanced_accuracy"
    pack = read_feature_set(unbalanced.features)
    images_K = np.bincount(pack.labels(pack.rows("train")))
    assert np.allclose(weighed["class_weights"], images_K.sum() / (3 * images_K))


def test_the_metric_that_selects_the_head_decides_later_too(unbalanced, run_stage):
    run_stage("head", unbalanced, class_weight="balanced", select="accuracy")
    assert json.loads((unbalanced.head / "head.json").read_text())["metric"] == "accuracy"
