import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.load import load_head, load_linear_head
from graft.tasks.register import stage as register
from graft.tasks.register.package import write_package
from graft.tasks.register.stage import predict_in_fresh_process


def test_a_second_run_gives_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.package)
    run_stage("register", paths)
    assert tree_bytes(paths.package) == before


def test_the_package_agrees_with_evaluate(paths, run_stage):
    metrics = run_stage("register", paths).metrics
    assert metrics["largest_difference"] <= 1e-6
    assert metrics["smoke_images"] == 4


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"engine": "torch"}], ids=str)
def test_features_kept_or_computed_in_another_way_are_packaged_too(paths, run_stage, change):
    run_stage("features", paths, **change)
    for stage in ("head", "finetune", "evaluate"):
        run_stage(stage, paths)
    assert run_stage("register", paths).metrics["largest_difference"] < 1e-2
    assert read_json(paths.package / "package.json")["precision"] == "f32"


def test_as_many_images_are_compared_as_there_are(paths, run_stage):
    expected = len(pd.read_parquet(paths.report / "predictions.parquet"))
    assert run_stage("register", paths, smoke_images=1000).metrics["smoke_images"] == expected


def test_a_head_that_is_not_the_evaluated_one_is_refused(paths, run_stage):
    head = load_linear_head(paths.head)
    LinearHead(-head.weight, head.bias, head.classes).save(paths.head)
    with pytest.raises(GraftError, match="does not predict the same as evaluate") as caught:
        run_stage("register", paths)
    assert "a probability that differs by" in caught.value.got


@pytest.fixture
def neighbours(paths, run_stage):
    """A project with a nearest neighbours' head."""
    for name in ("head", "finetune", "evaluate"):
        run_stage(name, paths, **({"kind": "knn", "knn_k": [3]} if name == "head" else {}))
    return paths


def test_rounding_may_decide_between_neighbours_that_are_as_near(neighbours, run_stage):
    """All stored images are the same but for the label and rounding, as features in half precision are."""
    head, pack = load_head(neighbours.head), read_feature_set(neighbours.features)
    shift = np.random.default_rng(0).normal(0, 1e-4, head.unit.shape)
    near = (head.unit[:1].astype(np.float32) + shift).astype(np.float16)
    replace(head, unit=near).save(neighbours.head)
    np.save(neighbours.features / "features.npy", pack.stored_ND.astype(np.float16))
    fingerprint = neighbours.features / "fingerprint.json"
    write_json(fingerprint, {**read_json(fingerprint), "dtype": "float16"})
    run_stage("evaluate", neighbours)
    assert run_stage("register", neighbours).metrics["largest_difference"] <= 1e-6


def test_more_neighbours_than_images_may_vote(neighbours, run_stage):
    replace(load_head(neighbours.head), k=1000).save(neighbours.head)
    run_stage("evaluate", neighbours)
    assert run_stage("register", neighbours).metrics["largest_difference"] <= 1e-6


def test_a_package_that_reads_images_in_another_way_is_refused(neighbours, run_stage, monkeypatch):
    def broken(folder, graph, head, calibration, facts):
        transform = {**facts["transform"], "crop_pct": 0.8}
        write_package(folder, graph, head, calibration, {**facts, "transform": transform})

    monkeypatch.setattr(register, "write_package", broken)
    with pytest.raises(GraftError, match="does not compute the features that evaluate used"):
        run_stage("register", neighbours)


@pytest.mark.parametrize(
    "change",
    [
        {"target": lambda head: (head.target + (head.target > 0)) % 3},  # one of three classes is another
        {"unit": lambda head: head.unit[:, ::-1]},
        {"temperature": lambda head: 0.5},
        {"weight": lambda head: head.weight * np.linspace(1, 3, len(head.weight), dtype=np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_package_whose_neighbours_are_not_the_evaluated_ones_is_refused(neighbours, run_stage, monkeypatch, change):
    def broken(folder, graph, head, calibration, facts):
        changed = {name: make(head) for name, make in change.items()}
        write_package(folder, graph, replace(head, **changed), calibration, facts)

    assert run_stage("register", neighbours).metrics["largest_difference"] <= 1e-6
    monkeypatch.setattr(register, "write_package", broken)
    with pytest.raises(GraftError, match="does not predict the same as evaluate"):
        run_stage("register", neighbours, smoke_images=100)


def test_a_package_that_was_refused_does_not_replace_the_earlier_one(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.package)
    head = load_linear_head(paths.head)
    LinearHead(-head.weight, head.bias, head.classes).save(paths.head)
    with pytest.raises(GraftError):
        run_stage("register", paths)
    assert tree_bytes(paths.package) == before
    assert [file.name for file in paths.package.parent.iterdir() if file.name.endswith(".part")] == []


def test_a_difference_within_the_tolerance_is_told(paths, run_stage):
    seen = pd.read_parquet(paths.report / "predictions.parquet")
    write_table(seen.assign(p_red=seen["p_red"] + 5e-5), paths.report / "predictions.parquet")
    assert run_stage("register", paths).metrics["largest_difference"] == pytest.approx(5e-5, rel=0.1)


def test_a_package_that_cannot_predict_is_refused_with_the_reason(paths):
    (paths.package / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(GraftError, match="cannot predict in a fresh process") as caught:
        predict_in_fresh_process(paths.package, [str(paths.raw / "red/000.png")])
    assert "Error" in caught.value.got


def test_a_fresh_process_leaves_no_bytecode_in_the_package(paths, tree_bytes):
    before = tree_bytes(paths.package)
    predict_in_fresh_process(paths.package, [str(paths.raw / "red/000.png")])
    assert tree_bytes(paths.package) == before


def test_the_facts_tell_what_the_model_is(finished_paths, tiny_graph):
    facts = read_json(finished_paths.package / "package.json")
    assert (facts["name"], facts["candidate"]) == ("graft", "head")
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["weights_sha256"] == tiny_graph.spec.weights_sha256
    assert facts["precision"] == "f32"


def test_the_package_has_the_evaluated_head(finished_paths):
    packed, evaluated = load_linear_head(finished_paths.package), load_linear_head(finished_paths.head)
    assert np.array_equal(packed.weight, evaluated.weight)
    assert np.array_equal(packed.bias, evaluated.bias)


def test_a_graph_that_is_gone_from_the_cache_is_made_again(paths, run_stage):
    shutil.rmtree(paths.cache)
    assert run_stage("register", paths).metrics["largest_difference"] <= 1e-6


@pytest.fixture
def tuned(tuned_paths, tmp_path, run_stage):
    """A copy of the fine-tuned project, in which the fine-tuned candidate was chosen and evaluated."""
    paths = Paths(tmp_path / "project")
    shutil.copytree(tuned_paths.root, paths.root)
    write_json(paths.finetune / "decision.json", {**read_json(paths.finetune / "decision.json"), "chosen": "finetune"})
    run_stage("evaluate", paths)
    return paths


def test_the_fine_tuned_candidate_is_packed_with_its_own_graph_and_head(tuned, run_stage):
    record = run_stage("register", tuned)
    assert record.facts["candidate"] == "finetune"
    assert record.metrics["largest_difference"] <= 1e-4
    assert (tuned.package / "graph.bin").read_bytes() == (tuned.finetune / "graph/graph.bin").read_bytes()
    assert np.array_equal(load_linear_head(tuned.package).weight, load_linear_head(tuned.finetune).weight)


def test_a_promise_travels_with_the_package_and_its_facts_tell_it(paths, run_stage):
    asked = replace(Calibration.load(paths.head), threshold=0.4, max_error=0.1, confidence=0.9)
    asked.save(paths.head)
    for stage in ("evaluate", "register"):
        run_stage(stage, paths)
    facts = read_json(paths.package / "package.json")
    assert Calibration.load(paths.package) == asked
    assert facts["threshold"] == 0.4
    assert "at most 10.00% get a wrong label, with 90% confidence" in facts["promise"]


def test_the_fresh_process_cannot_import_the_project(tmp_path):
    module = tmp_path / "code" / "model" / "register" / "serving.py"
    module.parent.mkdir(parents=True)
    module.write_text("import graft.tasks\n", encoding="utf-8")

    with pytest.raises(GraftError, match="No module named 'graft"):
        predict_in_fresh_process(tmp_path, [])
