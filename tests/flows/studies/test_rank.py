"""`graft rank`, on a project whose pipeline has run; two tiny networks with random weights."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from PIL import Image
from projects import draw, wait_for

from graft.flows.maintenance.feature_cache import collect, list_cache
from graft.flows.studies import rank, shared_decode
from graft.flows.studies.rank import list_candidates, rank_backbones
from graft.flows.studies.rank_record import _to_put
from graft.flows.studies.rank_text import advice
from graft.tasks.common.core.errors import GraftError, ParamsError
from graft.tasks.features.params import FeaturesParams

if TYPE_CHECKING:
    from projects import Project

BOTH = ("test_efficientnet", "test_resnet")


@pytest.fixture(scope="module")
def ranked(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """A project in which two networks were ranked. For reading only."""
    project = finished.copy(tmp_path_factory.mktemp("ranked") / "project")
    told = project.graft_here("rank", *BOTH, "--weights", "random", "--json").stdout
    return project, json.loads(told)


@pytest.fixture
def here(project: Project, ranked: tuple[Project, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which this very process may rank; the networks have been converted, and nothing computed."""
    graphs = Path(".graft") / "cache" / "graphs"
    shutil.copytree(ranked[0].root / graphs, project.root / graphs, dirs_exist_ok=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project.set("features", precision="f32")  # the comparison with bf16 would decode images as well
    return project


def files(project: Project, *splits: str) -> set[Path]:
    manifest = pd.read_parquet(project.root / "data" / "manifest" / "manifest.parquet")
    return {project.root / "data" / "raw" / path for path in manifest["path"][manifest["split"].isin(splits)]}


def fingerprint(project: Project) -> str:
    """Of the stage `features`."""
    return str(project.json("data/features/fingerprint.json")["digest"])


def candidates(found: dict[str, Any]) -> list[str]:
    return [row["backbone"] for row in found["candidates"]]


def test_every_candidate_is_in_the_table_with_its_metrics(ranked: tuple[Project, dict[str, Any]]) -> None:
    _, found = ranked

    assert set(candidates(found)) == set(BOTH)
    assert (found["metric"], found["margin"]) == ("accuracy", 0.02)
    assert found["candidates"][0]["as_good"] == "best"
    assert found["candidates"][1]["as_good"] in ("yes", "no", "too few")
    assert found["candidates"][1]["behind"] <= found["candidates"][1]["behind_at_most"]
    for row in found["candidates"]:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["images_per_second"] > 0
        assert row["megabytes"] > 0
    accuracies = [row["accuracy"] for row in found["candidates"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert any(row["on_front"] for row in found["candidates"])


def test_the_projects_own_backbone_has_the_metrics_of_the_stage_head(
    ranked: tuple[Project, dict[str, Any]],
) -> None:
    project, found = ranked
    own = next(row for row in found["candidates"] if row["backbone"] == "test_efficientnet")
    head = project.json("metrics/head.json")

    assert own["accuracy"] == pytest.approx(head["val_accuracy"])
    assert own["log_loss"] == pytest.approx(head["val_log_loss"], rel=1e-6)
    assert own["l2"] == head["l2"]
    assert own["fingerprint"] == project.json("data/features/fingerprint.json")["digest"]


def test_a_candidate_that_fails_is_told_with_its_reason(here: Project) -> None:
    here.set("features", image_size=100)  # no multiple of the patches of test_vit

    found = json.loads(here.graft_here("rank", "test_resnet", "test_vit", "--weights", "random", "--json").stdout)

    assert candidates(found) == ["test_resnet"]
    assert list(found["failed"]) == ["test_vit"]
    assert "100" in found["failed"]["test_vit"]
    (child,) = [run for run in here.runs() if run.info.run_name == "test_vit"]
    assert child.info.status == "FAILED"
    assert "100" in child.data.tags["mlflow.note.content"]


def test_the_files_are_the_json_that_was_printed_and_a_picture_that_git_ignores(
    ranked: tuple[Project, dict[str, Any]],
) -> None:
    project, found = ranked

    assert json.loads(Path(found["file"]).read_text(encoding="utf-8")) == found
    with Image.open(found["plot"]) as image:
        assert image.width > 500
    assert "rank" not in project.git("status", "--porcelain")


def test_mlflow_has_a_run_with_a_child_a_candidate(ranked: tuple[Project, dict[str, Any]]) -> None:
    project, found = ranked
    (parent,) = [run for run in project.runs() if run.info.run_name == "rank"]
    children = {
        run.info.run_name: run
        for run in project.runs()
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }

    assert parent.info.run_id == found["mlflow_run_id"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["git.commit"] == project.git("rev-parse", "HEAD")
    assert parent.inputs.dataset_inputs[0].dataset.digest == found["dataset"]
    assert {file.path for file in project.mlflow().list_artifacts(parent.info.run_id)} == {"rank.json", "rank.png"}
    assert set(children) == {*BOTH}
    for row in found["candidates"]:
        child = children[row["backbone"]]
        assert child.info.status == "FINISHED"
        assert child.data.metrics["val_accuracy"] == row["accuracy"]
        assert child.data.metrics["images_per_second"] == row["images_per_second"]
        assert child.data.params["features.backbone"] == row["backbone"]
        assert "head.l2_max" in child.data.params


def test_nothing_that_git_or_dvc_keep_is_changed(ranked: tuple[Project, dict[str, Any]], finished: Project) -> None:
    project, _ = ranked

    assert project.git("status", "--porcelain") == finished.git("status", "--porcelain")
    assert project.lock() == finished.lock()


def test_the_text_ends_with_the_lines_for_params_yaml(here: Project) -> None:
    told = here.graft_here("rank", "test_resnet", "--weights", "random").stdout

    assert told.endswith("features:\n  backbone: test_resnet\n\n")


def test_of_the_projects_own_backbone_it_says_that_params_yaml_names_it(here: Project) -> None:
    told = here.graft_here("rank", "test_efficientnet").stdout

    assert "params.yaml already has it" in told
    assert "  backbone:" not in told


def test_each_file_is_decoded_once_and_none_of_the_test_split(here: Project, decoded: Counter[Path]) -> None:
    rank_backbones(here.root, ["test_resnet", "test_convnext"], "random")

    assert decoded == Counter(files(here, "train", "val"))
    assert not files(here, "test") & set(decoded)


def test_what_the_stage_features_has_computed_is_not_computed_again(here: Project) -> None:
    here.set("features", precision="auto")  # as the stage has chosen it, by the processor

    found = rank_backbones(here.root, ["test_efficientnet"], None)

    assert found["candidates"][0]["measured"].startswith("a sample of ")


def test_what_was_ranked_is_not_computed_again_by_the_stage_features(here: Project) -> None:
    rank_backbones(here.root, ["test_resnet"], "random")
    here.set("features", backbone="test_resnet")
    here.repro("--single-item", "features")
    wait_for(lambda: not list(here.recorders().iterdir()), seconds=20)

    metrics = here.json("metrics/features.json")
    assert metrics["cache_misses"] == len(files(here, "test"))
    assert metrics["cache_hits"] == len(files(here, "train", "val"))


def test_images_that_have_come_since_are_ranked_too(here: Project) -> None:
    before = rank_backbones(here.root, ["test_resnet"], "random")["images"]
    for number in range(100, 112):
        draw(here.root / "data" / "raw" / "red" / f"{number}.png", 0, number)

    after = rank_backbones(here.root, ["test_resnet"], "random")["images"]

    assert sum(after.values()) > sum(before.values())
    assert sum(after.values()) == len(files(here, "train", "val"))


def test_if_no_candidate_can_be_ranked_it_fails_and_says_why(project: Project) -> None:
    project.set("features", image_size=100)

    done = project.graft_here("rank", "test_vit", "--weights", "random", check=False)

    assert done.returncode == 2
    assert "no candidate could be ranked" in done.stderr
    assert "100" in done.stderr
    assert "Traceback" not in done.stderr
    (parent,) = [run for run in project.runs() if run.info.run_name == "rank"]
    assert parent.info.status == "FAILED"


def test_a_misspelt_name_is_noticed_before_anything_is_done(project: Project) -> None:
    done = project.graft_here("rank", "test_resnet", "tf_eficientnet_lite0", check=False)

    assert done.returncode == 2
    assert "did you mean `tf_efficientnet_lite0`?" in done.stderr
    assert [run for run in project.runs() if run.info.run_name == "rank"] == []


def test_a_record_that_cannot_be_kept_is_told_before_the_work(project: Project) -> None:
    done = project.graft_here(
        "rank", check=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )

    assert done.returncode == 2
    assert "MLflow cannot be reached" in done.stderr


def test_two_names_of_one_network_are_one_candidate(tmp_path: Path) -> None:
    found = list_candidates(["ResNet50", "resnet50.tv_in1k"], None, FeaturesParams(), tmp_path)

    assert list(found) == ["ResNet50"]


def test_two_names_of_one_network_with_the_same_weights_are_ranked_once(
    here: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    found = rank_backbones(here.root, ["test_efficientnet", "test_efficientnet.r160_in1k"], "random")

    assert candidates(found) == ["test_efficientnet"]
    assert not found["failed"]
    assert "test_efficientnet.r160_in1k is the same network as test_efficientnet" in capfd.readouterr().err
    known = {entry.digest for entry in list_cache(here.root, {})}
    assert known == {fingerprint(here), found["candidates"][0]["fingerprint"]}


def test_while_it_is_at_work_gc_removes_nothing(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def extract(*given: Any) -> None:
        with pytest.raises(GraftError, match="is running") as caught:
            collect(here.root, {}, keep=[], gigabytes=None, dry_run=False)
        refused.append(caught.value.what)
        shared_decode.extract(*given)

    monkeypatch.setattr(rank, "extract", extract)
    rank_backbones(here.root, BOTH, "random")

    assert len(refused) == 1
    assert len(list_cache(here.root, {})) >= 2
    assert collect(here.root, {}, keep=[], gigabytes=None, dry_run=False)


def test_without_names_the_candidates_are_those_whose_weights_are_at_hand(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    (folder / "vgg16.tv_in1k.safetensors").write_bytes(b"weights")
    own = FeaturesParams(backbone="test_resnet", weights="random")

    found = list_candidates([], None, own, folder)

    assert found["test_resnet"] == own
    assert found["VGG16"].weights == "auto"
    assert {"tf_efficientnet_lite0"} <= set(found)
    assert "VGG19" not in found


def test_a_modern_network_is_a_candidate_where_its_weights_are_here(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    (folder / "convnext_tiny.fb_in22k.safetensors").touch()

    found = list_candidates([], None, FeaturesParams(), folder)

    assert "ConvNeXt-T" in found
    assert "ConvNeXt-S" not in found


def test_only_the_projects_own_backbone_has_its_own_weights_and_pin(tmp_path: Path) -> None:
    own = FeaturesParams(backbone="ResNet50", weights="package", weights_sha256="0" * 64)

    found = list_candidates(["ResNet50", "VGG16"], None, own, tmp_path)

    assert found["ResNet50"] == own
    assert (found["VGG16"].weights, found["VGG16"].weights_sha256) == ("auto", None)


def test_a_combination_names_what_each_backbone_needs_in_params_yaml() -> None:
    own = FeaturesParams(backbone="ResNet50", weights="random")
    same = [FeaturesParams(backbone=name, weights="random") for name in ("ResNet50", "VGG16")]
    other = [own, FeaturesParams(backbone="VGG16", weights="auto")]
    assert _to_put(same, own) == {"backbone": ["ResNet50", "VGG16"]}
    assert _to_put(other, own) == {"backbone": ["ResNet50", "VGG16"], "weights": ["random", "auto"]}
    assert _to_put([own], own) == {}


def document(**more: Any) -> dict[str, Any]:
    """A ranking of two by accuracy, of which the second is twice as fast."""
    rows = [
        {"backbone": name, "accuracy": value, "as_good": as_good, "images_per_second": speed, "behind": 0.9 - value,
         "behind_at_most": 0.08, "more_images": 120 if as_good == "too few" else 0}
        for name, value, as_good, speed in (("slow", 0.9, "best", 10.0), ("quick", 0.89, "too few", 20.0))
    ]  # fmt: skip
    params: dict[str, Any] = {"backbone": "slow", "params": {"backbone": "slow"}}
    return {
        "task": "classification", "metric": "accuracy", "margin": 0.02, "candidates": rows, "best": params,
        "fastest_as_good": params, "combination": None, **more,
    }  # fmt: skip


def test_too_few_images_to_tell_is_said_with_how_many_more_would() -> None:
    lines = list(advice(document()))
    assert lines[0] == "The best is slow (90.0% accuracy)."
    assert "Too few images to tell whether quick, 2.0 times as fast, is as good; about 120 more images would." in lines


def test_a_combination_is_told_with_its_gain_its_cost_and_the_lines_for_params_yaml() -> None:
    combination = {
        "backbones": ["slow", "quick"], "value": 0.95, "alone": 0.9, "gain": 0.05, "gain_at_least": 0.012, "cost": 1.5,
        "params": {"backbone": ["slow", "quick"]},
    }  # fmt: skip
    text = "\n".join(advice(document(combination=combination)))
    assert "Together, slow and quick have 95.0% accuracy, 5 points more than one alone (at least 1.2 points)" in text
    assert "for 1.5 times the time of slow" in text
    assert text.endswith("features:\n  backbone: [slow, quick]\n")


@pytest.mark.parametrize(("metric", "margin", "named"), [("r2", None, "--metric"), (None, -0.1, "--margin")])
def test_a_metric_of_another_task_and_a_negative_margin_are_refused(
    project: Project, metric: str | None, margin: float | None, named: str
) -> None:
    with pytest.raises(ParamsError, match=named):
        rank_backbones(project.root, [], None, metric, margin)


def test_weights_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        list_candidates(["ResNet50"], "imagenet", FeaturesParams(), tmp_path)

    assert caught.value.got == "imagenet"
    assert "keras" in caught.value.allowed


def test_weights_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="named"):
        list_candidates([], "random", FeaturesParams(), tmp_path)
