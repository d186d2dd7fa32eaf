"""Heads on several backbones, each of which sees something else of the images."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.files import read_json
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.heads.mean import MeanHead
from graft.tasks.head.combine import choose_combined, retrain, tried_by, way
from graft.tasks.head.params import HeadParams
from graft.tasks.head.selection import choose

QUICK = {"strengths": 5, "l2_max": 1.0, "l2_min": 1e-3, "mlp_epochs": 3, "mlp_hidden": 8, "knn_k": [1, 5]}
TASKS = ("classification", "multilabel", "regression")


def pack_of(task="classification", n=150, noise=0.5):
    """Two backbones of three features each; the target is the sum of the first feature of both."""
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(n, 6)).astype(np.float32)
    told = x_ND[:, 0] + x_ND[:, 3] + noise * rng.normal(size=n)
    label = {
        "classification": np.where(told > 0.5, "c", np.where(told > -0.5, "b", "a")),
        "multilabel": ["|".join(name for name, has in (("a", t > 0), ("b", t < 0.5)) if has) for t in told],
        "regression": (told * 10 + 100).astype(str),
    }[task]
    index = pd.DataFrame(
        {
            "image_id": [f"{i:032x}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "label": label,
            "task": task,
            "split": np.where(np.arange(n) % 3 == 0, "val", "train"),
            "group": pd.array([None] * n, "string"),
            "weight": 1.0,
            "pixels": [f"{i:032x}" for i in range(n)],
        }
    )
    fingerprint = {"eyes": [{"columns": [0, 3]}, {"columns": [3, 6]}]}
    return FeatureSet(x_ND, x_ND[:0], index, fingerprint)


def params(**changes):
    return HeadParams(**{**QUICK, **changes})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["auto", "knn", "ridge", "mlp"])
@pytest.mark.parametrize("folds", [0, 3])
def test_the_mean_of_every_kind_is_that_of_the_heads_of_each_backbone(task, kind, folds):
    pack = pack_of(task)
    settings = params(kind=kind, folds=folds, combine="mean")
    choice = choose_combined(pack, settings)
    alone = [choose(pack.only(eye), settings) for eye in pack.eyes]
    assert isinstance(choice.head, MeanHead)
    assert np.array_equal(choice.held, alone[0].held)
    assert np.allclose(choice.found.output, np.mean([one.found.output for one in alone], axis=0))
    outputs = [one.head.output(pack.only(eye).stored_ND) for one, eye in zip(alone, pack.eyes, strict=True)]
    assert np.allclose(choice.head.output(pack.stored_ND), np.mean(outputs, axis=0))


def test_side_by_side_is_one_head_on_all_features():
    pack = pack_of()
    choice, plain = choose_combined(pack, params(combine="side_by_side")), choose(pack, params())
    assert np.array_equal(choice.head.weight, plain.head.weight)
    assert way(choice) == "side_by_side"


def test_auto_takes_what_is_better_on_the_held_out_images():
    """A sum of both backbones is linear in their features, which a mean of probabilities is not."""
    choice = choose_combined(pack_of(noise=0.1), params())
    scores = {name: score.loss for name, score in choice.combined.items()}
    assert (way(choice), min(scores, key=scores.get)) == ("side_by_side", "side_by_side")


def test_auto_takes_the_mean_where_it_is_better():
    rng, pack = np.random.default_rng(1), pack_of()
    noisy_ND = (pack.stored_ND[:, [0, 1, 2, 0, 4, 5]] + rng.normal(size=pack.stored_ND.shape)).astype(np.float32)
    choice = choose_combined(replace(pack, stored_ND=noisy_ND), params(kind="knn"))
    scores = {name: score.loss for name, score in choice.combined.items()}
    assert way(choice) == min(scores, key=scores.get)


def test_both_ways_are_scored_as_they_are_served():
    """The mean of a sure and an unsure answer is not sure: without a temperature its log loss is too large."""
    pack = pack_of(noise=0.1)
    served, raw = (choose_combined(pack, params(calibrate=calibrate)) for calibrate in (True, False))
    assert served.combined["mean"].loss < raw.combined["mean"].loss
    assert served.combined["mean"].accuracy == raw.combined["mean"].accuracy
    scores = {name: score.loss for name, score in served.combined.items()}
    assert way(served) == min(scores, key=scores.get)


def test_one_backbone_is_chosen_for_as_ever():
    pack = replace(pack_of(), fingerprint={})
    choice = choose_combined(pack, params(combine="mean"))
    assert (choice.parts, choice.combined) == ((), {})
    assert np.array_equal(choice.head.weight, choose(pack, params()).head.weight)


def test_retraining_gives_each_backbone_its_own_strength():
    pack = pack_of()
    choice = choose_combined(pack, params(combine="mean"))
    head = retrain(choice, pack, pack.rows("train"), params(combine="mean"))
    assert np.allclose(head.output(pack.stored_ND), choice.head.output(pack.stored_ND), atol=1e-4)
    strengths = [part.found.chosen.settings["l2"] for part in choice.parts]
    assert choice.found.chosen.settings == {"l2_0": strengths[0], "l2_1": strengths[1]}


def test_the_candidates_of_a_mean_are_those_of_each_backbone():
    choice = choose_combined(pack_of(), params(combine="mean"))
    tried = tried_by(choice)
    assert [one.settings["eye"] for one in tried] == sorted(one.settings["eye"] for one in tried)
    assert len(tried) == sum(len(part.found.tried) for part in choice.parts)


def test_the_stage_writes_a_head_that_predicts_from_the_features_side_by_side(paths, run_stage):
    run_stage("features", paths, backbone=["test_efficientnet", "test_resnet"], weights="random")
    record = run_stage("head", paths, combine="mean")
    features_ND = np.load(paths.features / "features.npy")
    head = load_head(paths.head)
    assert head.dimension == features_ND.shape[1]
    assert head.predict_proba(features_ND).shape == (30, 3)
    assert record.facts["combine"] == "mean"
    assert {"l2_0", "l2_1"} <= set(record.metrics)
    table = pd.read_csv(paths.plots("head") / "path.csv")
    assert set(table["eye"]) == {0.0, 1.0}
    record = run_stage("head", paths)
    assert set(record.metrics["combined"]) == {"side_by_side", "mean"}
    assert read_json(paths.head / "head.json")["kind"] in ("linear", "mean")
    run_stage("audit", paths)  # which trains on all features side by side
