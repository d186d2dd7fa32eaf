"""The whole pipeline on several classes an image and on numbers, fine-tuning included."""

import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from projects import draw_shapes, draw_turned

from graft.tasks.common.candidates import read_candidates
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.record import Record
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.task import LOSS, MAIN
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.load import load_head, load_linear_head
from graft.tasks.common.scoring.main_metric import main_metric
from graft.tasks.register.serving import ImageClassifier

DRAW = {"multilabel": draw_shapes, "regression": draw_turned}


@dataclass(frozen=True)
class Project:
    """Every stage has run on it. For reading only."""

    paths: Paths
    task: str
    records: dict[str, Record]


@pytest.fixture(scope="module", params=DRAW)
def project(request, tmp_path_factory, run_stage, tiny_graph):
    """One of each task."""
    task = request.param
    paths = Paths(tmp_path_factory.mktemp(task))
    DRAW[task](paths.raw, 48)
    shutil.copytree(tiny_graph.xml.parent.parent, paths.cache / "graphs")
    changes = {
        "preprocess": {"task": task},
        "finetune": {"mode": "on", "epochs": 2, "batch_size": 8, "precision": "f32", "learning_rate": 1e-3},
    }
    return Project(paths, task, {stage: run_stage(stage, paths, **changes.get(stage, {})) for stage in STAGES})


def predictions(project):
    return pd.read_parquet(project.paths.report / "predictions.parquet")


def test_the_pack_knows_its_task_and_the_heads_are_of_it(project):
    assert read_feature_set(project.paths.features).task == project.task
    for folder, name in (
        (project.paths.head, "head"),
        (project.paths.head, "selected"),
        (project.paths.finetune, "head"),
    ):
        assert load_head(folder, name).task == project.task


def test_the_candidates_are_compared_by_the_tasks_main_metric(project):
    decision = read_json(project.paths.finetune / "decision.json")
    key, loss = MAIN[project.task].key, LOSS[project.task]
    head, tuned = decision["validation"]["head"], decision["validation"]["finetune"]
    assert set(head) == set(tuned) == {key, loss}
    better = (tuned[key], -tuned[loss]) > (head[key], -head[loss])
    assert decision["chosen"] == ("finetune" if better else "head")


def test_the_curves_of_training_are_of_the_tasks_metrics(project):
    curves = pd.read_csv(project.paths.finetune / "curves.csv")
    assert list(curves.columns) == ["epoch", "train_loss", "inner_loss", f"inner_{MAIN[project.task].key}"]
    assert np.isfinite(curves.to_numpy()).all()


def test_graph_and_head_of_the_trained_network_have_the_decisions_metric(project):
    pack = read_feature_set(project.paths.features)
    val = pack.rows("val")
    tuned = read_candidates(project.paths)[0]["finetune"]
    found = main_metric(tuned.output(pack, val, project.paths, "f32"), pack.targets(val), project.task)
    told = read_json(project.paths.finetune / "decision.json")["validation"]["finetune"][MAIN[project.task].key]
    assert found == pytest.approx(told, rel=1e-3)


def test_every_candidate_has_the_tasks_metrics(project):
    metrics = project.records["evaluate"].metrics
    assert set(metrics["candidates"]) == {"head", "finetune"}
    assert metrics["candidates"]["head"][MAIN[project.task].key] > 0.5
    for key in MAIN[project.task].keys:
        assert metrics[key] == metrics["candidates"][metrics["candidate"]][key]


def test_the_report_shows_what_the_network_looks_at(project):
    assert (project.paths.report / "saliency.png").is_file()
    supports = {"multilabel": "supports the class that is named", "regression": "increases the predicted number"}
    assert supports[project.task] in (project.paths.report / "index.html").read_text(encoding="utf-8")


def test_the_report_is_the_same_at_a_second_run(project, run_stage, tree_bytes):
    before = tree_bytes(project.paths.report), tree_bytes(project.paths.plots("evaluate"))
    run_stage("evaluate", project.paths)
    assert (tree_bytes(project.paths.report), tree_bytes(project.paths.plots("evaluate"))) == before


def test_the_package_says_what_evaluate_saw(project):
    seen = predictions(project)
    model = ImageClassifier(project.paths.package)
    told = model.predict([(project.paths.raw / path).read_bytes() for path in seen["path"]])
    assert read_json(project.paths.package / "package.json")["predicts"] == model.columns == list(told[0])
    if project.task == "regression":
        assert [one["value"] for one in told] == pytest.approx(list(seen["predicted"]), abs=1e-2)
    else:
        assert ["|".join(one["labels"]) for one in told] == list(seen["predicted"])
        assert told[0]["probabilities"]["disc"] == pytest.approx(seen["p_disc"].iloc[0], abs=1e-4)
    assert model.predict([]) == []
    assert project.records["register"].metrics["largest_difference"] < 1e-4


def test_a_package_that_says_something_else_is_refused(project, tmp_path, run_stage):
    import shutil

    paths = Paths(tmp_path / "project")
    shutil.copytree(project.paths.root, paths.root)
    chosen = read_json(paths.finetune / "decision.json")["chosen"]
    folder = paths.head if chosen == "head" else paths.finetune
    head = load_linear_head(folder)
    LinearHead(head.weight, head.bias + 1, head.classes, head.task).save(folder)
    with pytest.raises(GraftError, match=r"does not predict the same as evaluate[\s\S]*\.png"):
        run_stage("register", paths)
