"""Why a recorded run ran what it ran."""

from __future__ import annotations

import json
from typing import Any

import pytest
from projects import Project, Rerun, draw, wait_for

from graft.flows.lineage.why import Explanation, StageExplanation, explain
from graft.flows.status.image_diff import ImageChanges
from graft.flows.versioning.dvc import raw_hash
from graft.flows.versioning.dvc_config import share_cache
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES


def of(found: Explanation, stage: str) -> StageExplanation:
    return next(each for each in found.stages if each.stage == stage)


def test_the_last_run_is_explained_stage_by_stage(rerun: Rerun) -> None:
    """Its second run came from another parameter of the head."""
    found = explain(rerun.root)

    assert {stage.stage: stage.did for stage in found.stages} == {
        stage: "ran" if stage in rerun.ran else "reused" for stage in STAGES
    }
    assert [reason.words for reason in of(found, "head").reasons] == ["params head.l2_max changed"]
    assert [reason.words for reason in of(found, "audit").reasons] == ["models/head changed"]
    assert of(found, "features").note == "nothing that it depends on changed"
    assert found.sentence == "params head.l2_max changed; backbone unchanged"
    assert found.images is None


def test_each_stage_names_its_run_and_the_one_that_it_is_compared_with(rerun: Rerun) -> None:
    found, first = explain(rerun.root), explain(rerun.root, "1")

    assert of(found, "head").before == of(first, "head").run_id
    assert of(found, "features").run_id == of(first, "features").run_id
    assert rerun.json("runs/head.json")["run_id"] == of(found, "head").run_id


def test_the_first_run_says_so(rerun: Rerun) -> None:
    found = explain(rerun.root, "1")

    assert {stage.did for stage in found.stages} == {"ran"}
    assert [reason.words for reason in of(found, "head").reasons] == ["head never ran before"]
    assert found.sentence == "the first run"


def test_a_run_may_be_named_in_many_ways(rerun: Rerun) -> None:
    first, second = explain(rerun.root, "1"), explain(rerun.root)
    head = of(first, "head").run_id

    assert [explain(rerun.root, name) for name in (head, head[:8].upper(), first.run_id, "graft/1")] == [first] * 4
    assert [explain(rerun.root, name) for name in ("2", "challenger", "graft@challenger")] == [second] * 3


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("f" * 32, "no run has an id that begins with"),
        ("abcdef0123", "no run has an id that begins with"),
        ("99", "has no version"),
        ("other/1", "no model `other` is registered"),
    ],
)
def test_what_is_no_run_is_refused(rerun: Rerun, wanted: str, told: str) -> None:
    with pytest.raises(GraftError, match=told):
        explain(rerun.root, wanted)


def test_a_run_that_is_none_of_the_pipelines_is_refused(rerun: Rerun) -> None:
    with pytest.raises(GraftError, match="not a run of the pipeline"):
        explain(rerun.root, rerun.leaked)


def test_a_project_without_a_record_says_so(empty_project: Project) -> None:
    done = empty_project.graft_here("why", check=False)

    assert done.returncode == 2
    assert "nothing has been recorded" in done.stderr


def test_it_is_told_as_a_table_or_as_json(rerun: Rerun) -> None:
    told = rerun.graft_here("why", COLUMNS="200").stdout

    assert "params head.l2_max changed; backbone unchanged" in told
    assert len([line for line in told.splitlines() if "  reused  " in line]) == 2
    kept = json.loads(rerun.graft_here("why", "--json").stdout)
    assert kept["stages"][2]["reasons"] == [
        {"kind": "params", "words": "params head.l2_max changed", "names": ["head.l2_max"]}
    ]


@pytest.fixture(scope="module")
def grown(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project whose first stage ran again, with more images, other code and another seed; then it failed."""
    project = finished.copy(tmp_path_factory.mktemp("grown") / "project")
    for number in range(3):
        draw(project.root / "data" / "raw" / "red" / f"new{number}.png", 0, 800 + number)
    draw(project.root / "data" / "raw" / "blue" / "new.png", 2, 900)
    with (project.own_code() / "tasks" / "common" / "core" / "errors.py").open("a", encoding="utf-8") as file:
        file.write("\n# another line\n")
    project.set("preprocess", seed=1)
    project.repro("preprocess")
    project.set("preprocess", min_side=4000)
    project.dvc("repro", "preprocess", check=False)
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    return project


def preprocess_runs(project: Project) -> list[Any]:
    """Oldest first."""
    return [run for run in project.runs() if run.data.tags.get("graft.stage") == "preprocess"]


def test_images_are_counted_by_class_and_code_is_named_by_folder(grown: Project) -> None:
    found = explain(grown.root, preprocess_runs(grown)[1].info.run_id)

    assert [reason.words for reason in of(found, "preprocess").reasons] == [
        "+4 images (3 in class red, 1 in class blue)",
        "code of tasks/common/core changed",
        "params preprocess.seed changed",
    ]
    assert found.images == ImageChanges(4, 0, 0, {"red": 3, "blue": 1})


def test_of_a_failed_run_the_parameters_are_known_and_no_more(grown: Project) -> None:
    failed = preprocess_runs(grown)[2]

    found = of(explain(grown.root, failed.info.run_id), "preprocess")

    assert (found.did, found.before) == ("failed", preprocess_runs(grown)[1].info.run_id)
    assert [reason.words for reason in found.reasons] == ["params preprocess.min_side changed"]
    assert "it did not finish" in found.note


def test_without_a_listing_it_is_known_only_that_images_changed(grown: Project, tmp_path: Any) -> None:
    project = grown.copy(tmp_path / "project")
    run_id = preprocess_runs(project)[1].info.run_id
    digest = raw_hash(project.root)
    (project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()

    found = explain(project.root, run_id)

    assert found.images == ImageChanges(known=False)
    assert found.sentence.startswith("images changed (the number is unknown")


@pytest.mark.parametrize(
    "tags",
    [
        {"mlflow.source.git.repoURL": "https://example.org/another.git"},
        {"git.commit": "0" * 40},
    ],
)
def test_another_projects_runs_in_the_same_store_are_not_compared_with(
    rerun: Rerun, tmp_path: Any, tags: dict[str, str]
) -> None:
    project = rerun.copy(tmp_path / "project")
    second = explain(project.root)
    client = project.mlflow()
    head = client.get_run(of(second, "head").run_id)
    kept = {name: head.data.tags[name] for name in ("graft.stage", "git.commit", "dvc.dep.data/features")}
    began = head.info.start_time - 1
    foreign = client.create_run(head.info.experiment_id, start_time=began, tags={**kept, **tags}).info.run_id
    client.log_param(foreign, "head.kind", "knn")
    client.set_terminated(foreign)

    assert explain(project.root) == second


def test_a_project_that_has_got_an_origin_since_is_still_the_same(rerun: Rerun, tmp_path: Any) -> None:
    project = rerun.copy(tmp_path / "project")
    second = explain(project.root)
    for stage in second.stages:
        project.mlflow().set_tag(stage.run_id, "mlflow.source.git.repoURL", "https://example.org/ours.git")

    assert of(explain(project.root), "head") == of(second, "head")
    assert of(second, "head").before


def test_a_worktree_is_the_same_project(rerun: Rerun, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project, place = rerun.copy(tmp_path / "project"), tmp_path / "worktree"
    second = explain(project.root)
    project.git("worktree", "add", "--quiet", "--detach", str(place))
    share_cache(project.root, place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlflow.db")

    assert explain(place, second.run_id) == second


def test_the_first_commit_makes_no_other_project(grown: Project, tmp_path: Any) -> None:
    project = grown.copy(tmp_path / "project")
    first, second = (run.info.run_id for run in preprocess_runs(project)[:2])
    project.mlflow().set_tag(first, "git.commit", "none")

    assert of(explain(project.root, second), "preprocess").before == first, "their images are the same but for four"


def test_runs_on_wholly_other_images_are_not_compared_with(grown: Project, tmp_path: Any) -> None:
    project = grown.copy(tmp_path / "project")
    run = preprocess_runs(project)[1]
    listing = '[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "red/000.png"}]'
    place = project.root / ".dvc" / "cache" / "files" / "md5" / "00"
    place.mkdir(exist_ok=True)
    (place / f"{'0' * 30}.dir").write_text(listing, encoding="utf-8")
    client = project.mlflow()
    kept = {name: run.data.tags[name] for name in ("graft.stage", "git.commit")}
    began, tags = run.info.start_time - 1, {**kept, "dvc.dep.data/raw": f"{'0' * 32}.dir"}
    foreign = client.create_run(run.info.experiment_id, start_time=began, tags=tags).info.run_id
    client.set_terminated(foreign)

    found = of(explain(project.root, run.info.run_id), "preprocess")

    assert found.before == preprocess_runs(project)[0].info.run_id
