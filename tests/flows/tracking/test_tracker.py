"""MLflow's record of a run: one parent, one nested run a stage, and what each of them says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from projects import wait_for

from graft.flows.lineage.trace import trace
from graft.flows.tracking.names import flatten, mlflow_name
from graft.flows.tracking.tracker import REUSED, Tracker
from graft.flows.versioning.dvc import raw_hash
from graft.tasks.common.core.files import sha256
from graft.tasks.common.core.paths import STAGES
from graft.tasks.common.core.record import Record

if TYPE_CHECKING:
    from projects import Project, Rerun


def stage_runs(project: Project) -> dict[str, Any]:
    return {run.data.tags["graft.stage"]: run for run in project.runs() if "graft.stage" in run.data.tags}


def parents(project: Project) -> list[Any]:
    return [run for run in project.runs() if "mlflow.parentRunId" not in run.data.tags]


def recorded_to_its_end(project: Project) -> Any:
    """The newest parent run, once the recorder has settled it."""
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=30)
    return parents(project)[-1]


def reused_in(parent: Any) -> set[str]:
    return {key.removeprefix(REUSED) for key in parent.data.tags if key.startswith(REUSED)}


def rows_of(parent: Any) -> dict[str, str]:
    """Stage -> what the parent's description says of it."""
    rows = [line.strip("| ").split(" | ") for line in parent.data.tags["mlflow.note.content"].splitlines()]
    return {row[0]: row[-1].strip("| ") for row in rows if row[0] in STAGES}


def test_the_stages_of_one_repro_share_one_parent(finished: Project) -> None:
    (parent,) = parents(finished)

    assert parent.info.status == "FINISHED"
    assert parent.info.run_name.startswith("dvc repro")
    assert {run.data.tags["mlflow.parentRunId"] for run in stage_runs(finished).values()} == {parent.info.run_id}


def test_each_stage_logs_its_parameters_metrics_and_hashes(finished: Project) -> None:
    runs = stage_runs(finished)
    for stage in STAGES:
        run = runs[stage]
        assert run.info.status == "FINISHED"
        assert {key.split(".")[0] for key in run.data.params} == {stage}
        assert run.data.metrics["seconds"] > 0
        recorded = {
            key.removeprefix("dvc.out."): value for key, value in run.data.tags.items() if key.startswith("dvc.out.")
        }
        locked = finished.lock()
        assert recorded == {out: locked[out] for out in recorded}, "MLflow and DVC name the outputs by the same hashes"
        assert len(recorded) > 1


def test_the_parent_carries_the_tests_result(finished: Project) -> None:
    (parent,) = parents(finished)

    assert parent.data.metrics["test_accuracy"] == finished.json("metrics/evaluate.json")["accuracy"]


def test_parents_can_be_compared_in_the_run_table(rerun: Rerun) -> None:
    first, second = [run for run in parents(rerun) if "graft.invocation" in run.data.tags]

    for parent in (first, second):
        expected = stage_runs(rerun)["evaluate"].data.metrics.keys() - {"seconds", "startup_seconds"}
        assert {"accuracy", "log_loss"} <= expected <= parent.data.metrics.keys()
        assert parent.data.params["features.backbone"] == "test_efficientnet"
        assert parent.data.params["features.image_size"] == "160 x 160"
        assert (parent.data.params["head.kind"], parent.data.params["finetune.chosen"]) == ("auto", "head")
        assert "l2=" in parent.data.params["head.chosen"]
    assert first.data.params.keys() == second.data.params.keys()
    assert second.data.metrics["accuracy"] == rerun.json("metrics/evaluate.json")["accuracy"]


def test_pictures_are_images_of_the_stage_and_of_the_parent(finished: Project) -> None:
    runs, client = stage_runs(finished), finished.mlflow()
    shown = {}
    for name, run in {**runs, "parent": parents(finished)[0]}.items():
        files = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
        shown[name] = {Path(file).name.split("+")[0] for file in files if file.endswith(".png")}

    assert {"evaluate-confusion", "evaluate-misclassified"} <= shown["evaluate"]
    assert "audit-map" in shown["audit"]
    assert shown["parent"] == shown["evaluate"] | shown["audit"] | shown["finetune"]
    assert parents(finished)[0].data.tags["mlflow.loggedImages"] == "True"


def test_the_parents_lock_is_the_one_that_dvc_wrote_at_the_end(finished: Project) -> None:
    (parent,) = parents(finished)
    kept = Path(finished.mlflow().download_artifacts(parent.info.run_id, "dvc.lock"))

    assert kept.read_bytes() == (finished.root / "dvc.lock").read_bytes()
    assert parent.data.tags["dvc.lock.sha256"] == sha256(kept)


def test_hashes_of_what_a_stage_read_are_dvcs(finished: Project) -> None:
    import yaml

    stages = yaml.safe_load((finished.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for stage, run in stage_runs(finished).items():
        code = stages[stage]["params"]["graft.lock"][stage]
        locked = {dep["path"]: dep["md5"] for dep in stages[stage]["deps"]}
        tagged = {
            key.removeprefix("dvc.dep."): value for key, value in run.data.tags.items() if key.startswith("dvc.dep.")
        }
        assert tagged == locked
        recorded = finished.mlflow().download_artifacts(run.info.run_id, "dvc.json")
        assert json.loads(Path(recorded).read_text(encoding="utf-8"))["deps"] == {**locked, **code}


def test_runs_name_commit_versions_and_machine(finished: Project) -> None:
    first_commit = finished.git("rev-list", "--max-parents=0", "HEAD")
    for run in finished.runs():
        assert run.data.tags["git.commit"] == first_commit
        assert run.data.tags["git.dirty"] == "false"
        assert {"package.torch", "package.timm", "package.openvino", "python", "machine"} <= set(run.data.tags)


def test_the_images_are_a_dataset_named_by_dvcs_hash(finished: Project) -> None:
    run = finished.mlflow().get_run(stage_runs(finished)["preprocess"].info.run_id)
    (used,) = run.inputs.dataset_inputs

    assert used.dataset.digest == raw_hash(finished.root)
    assert len(used.dataset.digest) == 36
    assert json.loads(used.dataset.profile)["classes"] == {"blue": 14, "green": 14, "red": 14}
    assert json.loads(used.dataset.source)["dvc"]["path"] == "data/raw"


def test_the_datasets_source_can_be_read_back_through_mlflow(finished: Project) -> None:
    import mlflow

    from graft.flows.tracking.dataset import DvcDatasetSource

    run = finished.mlflow().get_run(stage_runs(finished)["preprocess"].info.run_id)
    source = mlflow.data.get_source(run.inputs.dataset_inputs[0])

    assert isinstance(source, DvcDatasetSource)
    assert source.md5 == raw_hash(finished.root)


def test_the_head_logs_its_path_step_by_step(finished: Project) -> None:
    run_id = stage_runs(finished)["head"].info.run_id
    losses = finished.mlflow().get_metric_history(run_id, "path_val_loss")

    assert [point.step for point in losses] == list(range(len(losses)))
    assert len(losses) == finished.json("metrics/head.json")["tried"]


def test_evaluate_keeps_its_report(finished: Project) -> None:
    files = finished.mlflow().list_artifacts(stage_runs(finished)["evaluate"].info.run_id)

    assert {"index.html", "confusion.png", "misclassified.png", "predictions.parquet"} <= {file.path for file in files}


def test_a_later_run_links_the_runs_that_it_reuses(finished: Project, rerun: Rerun) -> None:
    before = {stage: run.info.run_id for stage, run in stage_runs(finished).items()}

    newest = parents(rerun)[-1]
    ran = {
        run.data.tags["graft.stage"]
        for run in rerun.runs()
        if run.data.tags.get("mlflow.parentRunId") == newest.info.run_id
    }
    assert ran == {"head", "audit", "finetune", "evaluate", "register"}
    for stage in ("preprocess", "features"):
        assert newest.data.tags[f"graft.reused.{stage}"] == before[stage]
        assert before[stage] in newest.data.tags["mlflow.note.content"]


def test_a_failed_stage_is_recorded_as_failed_with_its_reason(project: Project) -> None:
    shutil.rmtree(project.root / "data" / "raw" / "green")
    shutil.rmtree(project.root / "data" / "raw" / "blue")

    done = project.dvc("repro", check=False)

    assert done.returncode != 0
    assert "fewer than two classes" in done.stderr
    failed = stage_runs(project)["preprocess"]
    assert failed.info.status == "FAILED"
    assert "fewer than two classes" in failed.data.tags["mlflow.note.content"]
    parent = recorded_to_its_end(project)
    assert parent.info.status == "FAILED"
    assert {row for stage, row in rows_of(parent).items() if stage != "preprocess"} == {"not reached"}


def test_a_run_that_fails_before_the_test_has_no_test_accuracy(project: Project) -> None:
    project.set("features", dtype="float16")
    stage = project.own_code() / "tasks" / "head" / "stage.py"
    stage.write_text(stage.read_text(encoding="utf-8") + "\nraise OSError(5, 'Input/output error')\n", encoding="utf-8")

    assert project.dvc("repro", check=False).returncode != 0

    newest, features = parents(project)[-1], stage_runs(project)["features"]
    assert (features.info.status, features.data.tags["mlflow.parentRunId"]) == ("FINISHED", newest.info.run_id)
    assert "test_accuracy" not in newest.data.metrics


def test_a_failed_repro_is_credited_with_nothing_that_it_did_not_reach(project: Project) -> None:
    stage = project.own_code() / "tasks" / "head" / "stage.py"
    head = "def run(params: HeadParams, paths: Paths) -> Record:\n"
    code = stage.read_text(encoding="utf-8").replace(head, f"{head}    raise ValueError('no head')\n\n", 1)
    stage.write_text(code, encoding="utf-8")

    assert project.dvc("repro", check=False).returncode != 0

    parent = recorded_to_its_end(project)
    assert reused_in(parent) == {"preprocess", "features"}
    rows = rows_of(parent)
    assert (rows["head"], rows["features"]) == ("failed", "reused: nothing it depends on changed")
    assert {rows[stage] for stage in ("audit", "finetune", "evaluate", "register")} == {"not reached"}
    told = trace(project.root, parent.info.run_id)
    assert told["versions"] == []
    assert [row["stage"] for row in told["stages"]] == ["preprocess", "features", "head"]


def test_what_nobody_asked_for_is_not_credited_to_a_repro_of_one_stage(project: Project) -> None:
    (project.own_code() / "tasks" / "head" / "more.py").write_text("", encoding="utf-8")

    assert project.repro("head") == ["head"]

    parent = recorded_to_its_end(project)
    assert parent.data.tags["graft.asked"] == "preprocess, features, head"
    assert reused_in(parent) == {"preprocess", "features"}
    rows = rows_of(parent)
    assert {rows[stage] for stage in ("audit", "finetune", "evaluate", "register")} == {"not asked for"}
    told = trace(project.root, parent.info.run_id)
    assert told["versions"] == []
    assert [row["stage"] for row in told["stages"]] == ["preprocess", "features", "head"]


def test_an_experiment_made_elsewhere_is_shown_as_training_unless_somebody_chose(
    empty_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = empty_project.mlflow()
    kind_of = lambda: client.get_experiment_by_name("graft").tags.get("mlflow.experimentKind")  # noqa: E731
    made = client.create_experiment("graft")
    found = []
    for before in ("", "genai_development_inferred", "genai_development"):
        client.set_experiment_tag(made, "mlflow.experimentKind", before)
        Tracker(empty_project.root)
        found.append(kind_of())

    assert found == ["custom_model_development", "custom_model_development", "genai_development"]


def test_a_run_id_leaked_into_the_environment_is_not_continued(rerun: Rerun) -> None:
    leaked = rerun.mlflow().get_run(rerun.leaked)

    assert leaked.data.metrics == {}
    assert leaked.data.params == {}


def test_an_unreachable_mlflow_is_one_clear_error_and_interrupts_the_work(project: Project) -> None:
    stage = project.own_code() / "tasks" / "head" / "stage.py"
    slow = "def run(params: HeadParams, paths: Paths) -> Record:\n"
    slow += '    import threading\n    threading.Event().wait(100)\n    open("worked", "x")\n\n\ndef _run'
    stage.write_text(stage.read_text(encoding="utf-8").replace("def run", slow, 1), encoding="utf-8")

    done = project.dvc(
        "repro",
        check=False,
        GRAFT_PROGRESS="json",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )

    assert done.returncode != 0
    assert "MLflow cannot be reached" in done.stderr
    assert "MLFLOW_TRACKING_URI" in done.stderr
    assert "::failure io" in done.stderr, "a flow tries it again"
    assert "Traceback" not in done.stderr
    assert not (project.root / "worked").exists()


def test_two_projects_in_one_process_have_a_store_each(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    projects = [finished.copy(tmp_path / name) for name in ("one", "two")]
    new = [Tracker(project.root).new_parent("run", {}) for project in projects]

    assert [parents(project)[-1].info.run_id for project in projects] == new


def test_nested_metrics_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": 2.0}) == {"a.b": 1, "d": 2.0}


def test_names_that_mlflow_would_not_take_stay_apart() -> None:
    assert mlflow_name("class/a b") == "class/a b"
    assert len({mlflow_name("a+b"), mlflow_name("a*b"), mlflow_name("x" * 300), mlflow_name("x" * 301)}) == 4


@pytest.mark.parametrize("name", ["a//b", "a/../b", "/a", "a/", "..", ".", "", "ä/б", "x" * 239 + "//", "50 %"])
def test_mlflow_takes_whatever_a_class_may_be_called(
    empty_project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(empty_project.root)
    run_id = tracker.start_candidate("run", tracker.new_parent("parent", {}), {"weight": {name: 2.0}}, "")

    tracker.log_record(run_id, Record({}), {"per_class": {name: {"recall": 0.5}}}, "")

    run = tracker.client.get_run(run_id)
    assert (list(run.data.metrics.values()), list(run.data.params.values())) == ([0.5], ["2.0"])


def test_more_than_a_hundred_facts_are_all_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(project.root)
    run_id = tracker.new_parent("run", {})

    tracker.log_record(run_id, Record({}, facts={f"fact.{n}": "x" for n in range(130)}), {}, "")

    assert sum(key.startswith("fact.") for key in tracker.client.get_run(run_id).data.tags) == 130
