import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from graft.tasks.common.backbones.graph import read_graph
from graft.tasks.common.candidates import read_candidates
from graft.tasks.common.core.errors import GraftError, ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.units import units_of
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.feature_cache.segments import count_images
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.common.images.transform import load
from graft.tasks.common.scoring.classification import accuracy, log_loss
from graft.tasks.common.scoring.temperature import calibrate
from graft.tasks.finetune.decision import enough_minutes
from graft.tasks.finetune.lessons import main_lesson
from graft.tasks.finetune.scaling import cross_scaled

PROGRAM = """
import json, pathlib, sys
from graft.tasks.common.core.paths import Paths
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.stage import run
run(FinetuneParams(**json.loads(sys.argv[2])), Paths(pathlib.Path(sys.argv[1])))
sys.exit("torch" in sys.modules)
"""


@pytest.fixture
def poor_paths(paths):
    """A project whose head has learned the opposite: there is something to gain."""
    head = load_linear_head(paths.head, "selected")
    settings = {key: read_json(paths.head / "selected.json")[key] for key in ("estimator", "l2")}
    LinearHead(-head.weight, -head.bias, head.classes, head.task).save(paths.head, "selected", **settings)
    return paths


def network_of(paths):
    from safetensors.torch import load_file

    return load_file(paths.finetune / "network.safetensors")


def changed(paths, tiny_network):
    """Names of what is not as in the pre-trained network."""
    before = tiny_network.state_dict()
    after = network_of(paths)
    assert after.keys() == before.keys()
    return {name for name in before if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize(
    ("params", "reason"),
    [({"mode": "off"}, "`finetune.mode` is off"), ({"mode": "auto", "min_images": 500}, "fewer than")],
    ids=["off", "auto with too few images"],
)
def test_saying_no_writes_only_the_decision_and_imports_no_torch(paths, repository, params, reason):
    subprocess.run([sys.executable, "-c", PROGRAM, str(paths.root), json.dumps(params)], cwd=repository, check=True)
    assert [file.name for file in paths.finetune.iterdir()] == ["decision.json"]
    decision = read_json(paths.finetune / "decision.json")
    assert (decision["ran"], decision["chosen"]) == (False, "head")
    assert reason in decision["reason"]


def test_from_a_head_that_is_not_linear_auto_trains_nothing_and_says_why(paths, repository, run_stage):
    run_stage("head", paths, kind="knn", knn_k=[3])
    params = json.dumps({"mode": "auto", "min_images": 1, "budget_minutes": 1000})
    subprocess.run([sys.executable, "-c", PROGRAM, str(paths.root), params], cwd=repository, check=True)
    decision = read_json(paths.finetune / "decision.json")
    assert (decision["ran"], decision["chosen"]) == (False, "head")
    assert "this one is of kind knn (`head.kind`)" in decision["reason"]
    assert decision["validation"]["head"]["accuracy"] > 0


def test_from_a_head_that_is_not_linear_on_is_an_error_that_names_both_keys(paths, run_stage, tree_bytes):
    run_stage("head", paths, kind="mlp", mlp_epochs=1, mlp_hidden=4)
    before = tree_bytes(paths.finetune)
    with pytest.raises(ParamsError, match=r"`finetune.mode`(.|\n)*`head.kind`"):
        run_stage("finetune", paths, mode="on")
    assert tree_bytes(paths.finetune) == before


def test_a_head_by_ridge_regression_is_linear_and_may_be_fine_tuned_from(paths, run_stage):
    run_stage("head", paths, kind="ridge")
    assert run_stage("finetune", paths, mode="on", epochs=1, batch_size=8).metrics["ran"]


def test_auto_does_not_try_to_improve_on_a_head_without_a_mistake(paths, run_stage):
    record = run_stage("finetune", paths, mode="auto", min_images=1, budget_minutes=60)
    images = len(read_feature_set(paths.features).rows("val"))
    assert f"0 of {images} validation images wrong" in record.facts["reason"]
    assert not record.metrics["ran"]


def test_the_score_of_the_frozen_head_is_that_of_the_head_that_has_not_seen_validation(finished_paths):
    pack = read_feature_set(finished_paths.features)
    val = pack.rows("val")
    p_NK = load_linear_head(finished_paths.head, "selected").predict_proba(pack.stored_ND[val])
    score = read_json(finished_paths.finetune / "decision.json")["validation"]["head"]
    assert score["accuracy"] == accuracy(p_NK, pack.labels(val))
    assert score["log_loss"] == pytest.approx(scaled_log_loss(p_NK, pack))


def scaled_log_loss(p_NK, pack):
    """Of the validation images, each half scaled by the temperature of the other."""
    val = pack.rows("val")
    target, weight_N, unit_N = pack.labels(val), pack.weights(val), units_of(pack, val)[0]
    return log_loss(cross_scaled(p_NK, target, weight_N, unit_N, "classification"), target)


def test_auto_measures_and_stays_with_the_head_when_it_would_take_too_long(poor_paths, run_stage, capsys):
    changes = {"min_images": 1, "budget_minutes": 1e-6, "batch_size": 4, "precision": "f32"}
    record = run_stage("finetune", poor_paths, mode="auto", **changes)
    decision = read_json(poor_paths.finetune / "decision.json")
    assert (decision["ran"], decision["chosen"]) == (False, "head")
    assert record.metrics["predicted_minutes"] > 1e-6
    assert "minutes predicted" in record.facts["reason"]
    advised = f"to train, set `finetune.budget_minutes: {enough_minutes(record.metrics['predicted_minutes'])}`"
    assert advised in capsys.readouterr().err


def test_what_a_clock_measured_does_not_change_the_decision(poor_paths, run_stage):
    changes = {"mode": "auto", "min_images": 1, "budget_minutes": 1e-6, "batch_size": 4, "precision": "f32"}
    contents = []
    for _ in range(2):
        run_stage("finetune", poor_paths, **changes)
        contents.append((poor_paths.finetune / "decision.json").read_bytes())
    assert contents[0] == contents[1]


def test_auto_trains_when_there_is_time(poor_paths, run_stage):
    changes = {"min_images": 1, "budget_minutes": 60, "epochs": 1, "batch_size": 8, "precision": "f32"}
    record = run_stage("finetune", poor_paths, mode="auto", **changes)
    decision = read_json(poor_paths.finetune / "decision.json")
    assert decision["ran"]
    assert 0 < record.metrics["predicted_minutes"] < 60
    assert record.metrics["epochs"] == 1


def test_training_writes_all_that_a_candidate_needs(tuned_paths, names_in, head_files):
    further = {"decision.json", "graph", "network.safetensors", "curves.csv", "augmentation.png"}
    assert names_in(tuned_paths.finetune) == head_files | further


def test_the_trained_network_is_calibrated_by_its_own_probabilities(tuned_paths):
    pack = read_feature_set(tuned_paths.features)
    val = pack.rows("val")
    candidates, _ = read_candidates(tuned_paths)
    p_NK = candidates["finetune"].output(pack, val, tuned_paths, "f32")
    expected = calibrate(p_NK, pack.labels(val), pack.weights(val), "classification", scale=True)
    found = Calibration.load(tuned_paths.finetune)
    assert found == candidates["finetune"].calibration
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.temperature != candidates["head"].calibration.temperature


def test_a_promise_asked_of_the_head_is_asked_of_the_trained_network(paths, run_stage):
    asked = replace(Calibration.load(paths.head), max_error=0.001, confidence=0.9, threshold=0.5)
    asked.save(paths.head)
    record = run_stage("finetune", paths, mode="on", epochs=1, batch_size=8, precision="f32")
    found = Calibration.load(paths.finetune)
    assert (found.max_error, found.threshold) == (0.001, None)
    assert record.facts["chosen"] == "head"
    assert record.metrics["calibration"]["least_error"] > 0.001


def test_the_decision_tells_both_scores_and_keeps_the_better(tuned_paths):
    decision = read_json(tuned_paths.finetune / "decision.json")
    head, tuned = decision["validation"]["head"], decision["validation"]["finetune"]
    assert tuned.keys() == head.keys() == {"accuracy", "log_loss"}
    assert decision["chosen"] == ("finetune" if decision["p"] <= 0.05 else "head")
    images = len(read_feature_set(tuned_paths.features).rows("val"))
    assert decision["held_out"] == {"images": images, "units": images, "folds": 0}
    assert not decision["refitted"]
    assert decision["settled"]["epochs"] == 2
    assert decision["more_images"].startswith("the gain from twice the images is unknown")


def test_the_curves_have_a_row_an_epoch(tuned_paths):
    assert list(pd.read_csv(tuned_paths.finetune / "curves.csv")["epoch"]) == [0, 1]


def test_the_graph_computes_what_the_trained_network_computes(tuned_paths, photo):
    import timm
    from safetensors.torch import load_file

    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    model.load_state_dict(load_file(tuned_paths.finetune / "network.safetensors"))
    graph = read_graph(tuned_paths.finetune / "graph")
    pixels = np.stack([graph.spec.transform(photo(60 + n, 90)) for n in range(3)])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (graph.spec.transform.mean, graph.spec.transform.std))
    with torch.inference_mode():
        expected = model((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std).numpy()
    assert np.allclose(Engine(graph.xml)(pixels), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_trained_network_is_another_than_the_frozen_one(tuned_paths, tiny_graph):
    assert read_graph(tuned_paths.finetune / "graph").spec.weights_sha256 != tiny_graph.spec.weights_sha256


def test_frozen_batch_norm_is_still_that_of_pretraining_after_the_stage(tuned_paths, tiny_network):
    from safetensors.torch import load_file

    tuned = load_file(tuned_paths.finetune / "network.safetensors")
    frozen = {name: value for name, value in tiny_network.state_dict().items() if "running_" in name}
    assert frozen
    assert all(torch.equal(tuned[name], value) for name, value in frozen.items())


def test_graph_and_head_have_the_validation_score_of_the_decision(tuned_paths):
    pack = read_feature_set(tuned_paths.features)
    val = pack.rows("val")
    graph = read_graph(tuned_paths.finetune / "graph")
    files = [tuned_paths.raw / path for path in pack.index["path"].iloc[val]]
    features_ND = Engine(graph.xml)(np.stack([load(file, None, graph.spec.transform, pack.reading) for file in files]))
    p_NK = load_linear_head(tuned_paths.finetune).predict_proba(features_ND)
    score = read_json(tuned_paths.finetune / "decision.json")["validation"]["finetune"]
    assert accuracy(p_NK, pack.labels(val)) == score["accuracy"]
    assert scaled_log_loss(p_NK, pack) == pytest.approx(score["log_loss"], rel=1e-3)


def test_a_training_that_is_done_leaves_no_checkpoint(tuned_paths):
    assert list(tuned_paths.checkpoints.glob("*")) == []


def test_training_leaves_the_head_and_the_features_alone(tuned_paths, finished_paths, tree_bytes):
    for place in ("head", "features", "manifest"):
        assert tree_bytes(getattr(tuned_paths, place)) == tree_bytes(getattr(finished_paths, place))


def test_both_candidates_can_be_read_after_training(tuned_paths):
    candidates, chosen = read_candidates(tuned_paths)
    assert set(candidates) == {"head", "finetune"}
    assert chosen in candidates


def test_only_the_head_is_a_candidate_without_training(finished_paths):
    candidates, chosen = read_candidates(finished_paths)
    assert (set(candidates), chosen) == ({"head"}, "head")


def test_a_later_decision_against_training_removes_what_was_trained(tuned_paths, tmp_path, run_stage):
    paths = Paths(tmp_path / "project")
    shutil.copytree(tuned_paths.root, paths.root)
    run_stage("finetune", paths, mode="off")
    assert [file.name for file in paths.finetune.iterdir()] == ["decision.json"]


def test_norm_changes_only_norm_layers(paths, run_stage, tiny_network):
    from graft.tasks.finetune.param_groups import is_norm

    run_stage("finetune", paths, mode="on", layers="norm", epochs=2, batch_size=8, learning_rate=0.1, precision="f32")
    norms = {
        f"{name}.{part}" for name, module in tiny_network.named_modules() if is_norm(module)
        for part in ("weight", "bias")
    }  # fmt: skip
    assert changed(paths, tiny_network) == norms


@pytest.fixture(scope="session")
def staged_paths(finished_paths, tmp_path_factory, run_stage):
    """A project whose last stage was trained on cached maps. For reading only."""
    paths = Paths(Path(shutil.copytree(finished_paths.root, tmp_path_factory.mktemp("staged") / "project")))
    run_stage("finetune", paths, mode="on", layers="last_stage", epochs=2, batch_size=8, precision="f32")
    return paths


def test_maps_too_large_for_half_precision_say_what_to_set_instead(paths, run_stage, monkeypatch):
    original = Engine.stream

    def large(self, load, count, threads=None):
        for start, batch in original(self, load, count, threads):
            yield start, np.full_like(batch, 1e6)

    monkeypatch.setattr(Engine, "stream", large)
    with pytest.raises(ParamsError, match="last_stage` does not work with") as refused:
        run_stage("finetune", paths, mode="on", layers="last_stage", epochs=1, batch_size=8, precision="f32")
    assert "are not finite as float16" in refused.value.got
    assert refused.value.todo == "set `finetune.layers: all`"


def test_the_last_stage_changes_nothing_before_the_cut(staged_paths, tiny_network):
    split_network = read_json(staged_paths.finetune / "decision.json")["settled"]["cut_before"]
    names = [name for name, _ in tiny_network.named_modules()]
    after = {name for name in names if names.index(name) >= names.index(split_network)}
    found = changed(staged_paths, tiny_network)
    assert found
    assert {name.rpartition(".")[0] for name in found} <= after


def test_graph_and_head_of_the_last_stage_have_the_validation_score_of_the_decision(staged_paths):
    """So what was trained on maps of half precision is what the whole network computes."""
    pack = read_feature_set(staged_paths.features)
    val = pack.rows("val")
    graph = read_graph(staged_paths.finetune / "graph")
    files = [staged_paths.raw / path for path in pack.index["path"].iloc[val]]
    p_NK = load_linear_head(staged_paths.finetune).predict_proba(
        Engine(graph.xml)(np.stack([load(file, None, graph.spec.transform, pack.reading) for file in files]))
    )
    score = read_json(staged_paths.finetune / "decision.json")["validation"]["finetune"]
    assert accuracy(p_NK, pack.labels(val)) == score["accuracy"]
    assert scaled_log_loss(p_NK, pack) == pytest.approx(score["log_loss"], rel=5e-3)


def test_maps_are_computed_once(staged_paths, tmp_path, run_stage):
    paths = Paths(Path(shutil.copytree(staged_paths.root, tmp_path / "project")))
    folders = [f for f in (paths.cache / "features").iterdir() if "cut_before" in read_json(f / "fingerprint.json")]
    assert len(folders) == 1
    pack = read_feature_set(paths.features)
    lesson = main_lesson(pack, 0)
    learned, plain = len(lesson.learned), len(lesson.inner) + len(lesson.judged)
    assert count_images(folders[0]) == 2 * learned + plain
    segments = sorted(folders[0].glob("*.safetensors"))
    run_stage("finetune", paths, mode="on", layers="last_stage", epochs=2, batch_size=8, precision="f32")
    assert sorted(folders[0].glob("*.safetensors")) == segments
    run_stage("finetune", paths, mode="on", layers="last_stage", epochs=3, batch_size=8, precision="f32")
    assert count_images(folders[0]) == 3 * learned + plain


def test_from_scratch_nothing_is_left_of_what_was_transferred(paths, run_stage, tiny_network):
    changes = {"mode": "on", "init": "scratch", "epochs": 1, "batch_size": 8, "precision": "f32", "seed": 3}
    record = run_stage("finetune", paths, **changes)
    weights = {name for name, value in tiny_network.named_parameters() if value.ndim > 1}
    assert changed(paths, tiny_network) >= weights
    assert record.facts["batch_norm"] == "running"
    assert (record.facts["init"], record.facts["layers"]) == ("scratch", "all")


def test_auto_stays_with_the_head_where_the_network_cannot_be_cut(poor_paths, run_stage, monkeypatch):
    from graft.tasks.finetune import split_network

    monkeypatch.setattr(split_network, "AGREE", -1.0)  # as if the two parts were never the network
    changes = {"layers": "last_stage", "min_images": 1, "budget_minutes": 60, "batch_size": 8}
    record = run_stage("finetune", poor_paths, mode="auto", **changes)
    assert "test_efficientnet cannot be cut for its last stage" in record.facts["reason"]
    with pytest.raises(ParamsError, match=r"finetune.layers: all"):
        run_stage("finetune", poor_paths, mode="on", **changes)


def test_maps_that_only_an_estimate_has_cached_are_described(poor_paths, run_stage):
    changes = {"layers": "last_stage", "min_images": 1, "budget_minutes": 1e-9, "batch_size": 8}

    run_stage("finetune", poor_paths, mode="auto", **changes)

    notes = [folder / "fingerprint.json" for folder in (poor_paths.cache / "features").iterdir()]
    assert any("cut_before" in read_json(note) for note in notes)


def test_two_processes_learn_what_one_does(paths, tmp_path, run_stage):
    """Two, on the processor by gloo, with the same images a step."""
    changes = {"mode": "on", "layers": "all", "epochs": 2, "batch_size": 3, "precision": "f32", "mixup": 0.3}
    changes |= {"checkpoint_every": 1e-9, "learning_rate": 3e-4}  # both must come to the same checkpoints
    both = Paths(Path(shutil.copytree(paths.root, tmp_path / "both")))
    run_stage("finetune", paths, processes=1, **changes)
    run_stage("finetune", both, processes=2, **changes)
    one, two = (pd.read_csv(p.finetune / "curves.csv") for p in (paths, both))
    assert len(one) == 2
    assert np.allclose(one[["train_loss", "inner_loss"]], two[["train_loss", "inner_loss"]], rtol=1e-4, atol=0)


def test_more_processes_than_a_step_has_images_for_are_refused(paths, run_stage):
    with pytest.raises(ParamsError, match=r"finetune.processes(.|\n)*1 to 4"):
        run_stage("finetune", paths, mode="on", epochs=1, batch_size=8, processes=5)


def test_what_fails_in_several_processes_fails_here(paths, run_stage):
    pack = read_feature_set(paths.features)
    (paths.raw / pack.index["path"].iloc[pack.rows("train")[0]]).unlink()
    with pytest.raises(GraftError, match="several processes failed"):
        run_stage("finetune", paths, mode="on", epochs=1, batch_size=8, precision="f32", processes=2)
    assert read_json(paths.finetune / "decision.json")["mode"] == "off"  # as it was


KILLED = """
import json, pathlib, sys
from graft.tasks.common.core.paths import Paths
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.stage import run
run(FinetuneParams(**json.loads(sys.argv[2])), Paths(pathlib.Path(sys.argv[1])))
"""


def test_a_stage_killed_at_any_moment_goes_on_from_its_checkpoint(paths, tmp_path, run_stage, repository, capfd):
    changes = {
        "mode": "on",
        "layers": "all",
        "epochs": 4,
        "batch_size": 8,
        "precision": "f32",
        "checkpoint_every": 1e-9,
        "patience": 99,
    }
    undisturbed = Paths(Path(shutil.copytree(paths.root, tmp_path / "undisturbed")))
    run_stage("finetune", undisturbed, **changes)
    command = [sys.executable, "-c", KILLED, str(paths.root), json.dumps(changes)]
    with subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "epoch 2 of 4" in line:
                process.kill()
                break
        process.stderr.read()
    capfd.readouterr()
    run_stage("finetune", paths, **changes)
    assert "from the checkpoint of an interrupted run" in capfd.readouterr().err
    pd.testing.assert_frame_equal(
        pd.read_csv(paths.finetune / "curves.csv"), pd.read_csv(undisturbed.finetune / "curves.csv"), rtol=1e-5
    )


FOLDED = {"mode": "on", "folds": 2, "epochs": 1, "batch_size": 8, "precision": "f32"}


def test_with_folds_every_training_and_validation_image_takes_part_in_the_decision(paths, run_stage):
    record = run_stage("finetune", paths, **FOLDED)
    pack = read_feature_set(paths.features)
    decision = read_json(paths.finetune / "decision.json")
    assert decision["held_out"]["images"] == len(pack.rows("train", "val"))
    assert decision["held_out"]["folds"] == 2
    assert Calibration.load(paths.finetune).metrics["images"] == len(pack.rows("train", "val"))
    assert record.metrics["epochs"] == 1


def test_a_kept_network_is_trained_again_with_the_validation_images(poor_paths, tmp_path, run_stage):
    settings = {"mode": "on", "epochs": 2, "batch_size": 8, "precision": "f32", "learning_rate": 1e-3}
    plain = Paths(Path(shutil.copytree(poor_paths.root, tmp_path / "plain")))
    run_stage("finetune", plain, refit=False, **settings)
    run_stage("finetune", poor_paths, refit=True, **settings)
    before, after = (read_json(p.finetune / "decision.json") for p in (plain, poor_paths))
    assert (before["chosen"], before["refitted"]) == ("finetune", False)
    assert {**before, "refitted": True} == after, "the decision is the one before the refit"
    assert (plain.finetune / "calibration.json").read_bytes() == (poor_paths.finetune / "calibration.json").read_bytes()
    assert [read_candidates(p)[0]["finetune"].refitted for p in (plain, poor_paths)] == [False, True]
    heads = [load_linear_head(p.finetune) for p in (plain, poor_paths)]
    assert not np.array_equal(heads[0].weight, heads[1].weight)
    assert list(poor_paths.checkpoints.glob("*")) == []


def test_after_a_kill_before_the_refit_nothing_is_trained_twice(
    poor_paths, tmp_path, run_stage, tree_bytes, monkeypatch
):
    from graft.tasks.finetune.lecture import Lecture
    from graft.tasks.finetune.trainer import Trainer

    settings = {"mode": "on", "epochs": 2, "batch_size": 8, "precision": "f32", "refit": True, "learning_rate": 1e-3}
    undisturbed = Paths(Path(shutil.copytree(poor_paths.root, tmp_path / "undisturbed")))
    run_stage("finetune", undisturbed, **settings)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Lecture, "refit", lambda self, course: (_ for _ in ()).throw(KeyboardInterrupt))
        run_stage("finetune", poor_paths, **settings)
    epochs = []
    epoch = Trainer._one_epoch
    monkeypatch.setattr(Trainer, "_one_epoch", lambda *args: (epochs.append(1), epoch(*args)))
    record = run_stage("finetune", poor_paths, **settings)
    assert len(epochs) == record.metrics["best_epoch"] + 1, "those of the refit alone"
    for file in ("decision.json", "head.safetensors", "network.safetensors"):
        assert (poor_paths.finetune / file).read_bytes() == (undisturbed.finetune / file).read_bytes()


def test_where_classes_have_weights_balanced_accuracy_decides(paths, run_stage):
    run_stage("head", paths, class_weight="balanced")
    run_stage("finetune", paths, mode="off")
    decision = read_json(paths.finetune / "decision.json")
    assert list(decision["validation"]["head"]) == ["balanced_accuracy", "log_loss"]
