"""The registered model: what others load is what was tested."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest
from projects import wait_for
from served import check_served

from graft.flows.lineage.trace import trace
from graft.flows.registry import integrity, ledger
from graft.flows.registry.models import fetched_model, key_of
from graft.flows.registry.registering import register_model
from graft.flows.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from projects import Project, Rerun

PREDICT = """
import base64, json, pathlib, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/graft@champion")
files = json.load(sys.stdin)
forms = {
    "path": [pathlib.Path(file) for file in files],
    "bytes": [open(file, "rb").read() for file in files],
    "base64": [base64.b64encode(open(file, "rb").read()).decode() for file in files],
}
seen = {name: model.predict(pd.DataFrame({"image": images})) for name, images in forms.items()}
print(json.dumps({name: table.to_dict("records") for name, table in seen.items()}))
print(json.dumps(sorted({"torch", "timm"} & set(sys.modules))), file=sys.stderr)
"""


def test_a_fresh_process_predicts_what_evaluate_saw(finished: Project) -> None:
    expected = pd.read_parquet(finished.root / "report" / "predictions.parquet")
    files = [str(finished.root / "data" / "raw" / path) for path in expected["path"]]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, f"sqlite:///{finished.root}/mlflow.db"],
        input=json.dumps(files),
        capture_output=True,
        text=True,
        cwd="/",
        env=finished.environment(),
    )

    assert done.returncode == 0, done.stderr
    for rows in json.loads(done.stdout).values():
        assert [row["label"] for row in rows] == list(expected["predicted"])
        for row, (_, seen) in zip(rows, expected.iterrows(), strict=True):
            assert abs(row["score"] - seen["score"]) < 1e-4
            assert all(abs(p - seen[f"p_{name}"]) < 1e-4 for name, p in row["probabilities"].items())
    assert done.stderr.splitlines()[-1] == "[]", "neither torch nor timm is needed to predict"


def test_the_first_version_is_challenger_and_champion(finished: Project) -> None:
    version = finished.mlflow().get_model_version("graft", "1")

    assert sorted(version.aliases) == ["challenger", "champion"]
    assert version.tags["dvc.raw"].endswith(".dir")
    assert version.tags["backbone"] == "test_efficientnet"
    assert "Test accuracy" in version.description


def test_a_second_version_becomes_challenger_and_the_champion_stays(rerun: Rerun) -> None:
    client = rerun.mlflow()

    assert str(client.get_model_version_by_alias("graft", "challenger").version) == "2"
    assert str(client.get_model_version_by_alias("graft", "champion").version) == "1"
    assert rerun.json(".graft/registration.json")["version"] == "2"


def test_an_earlier_result_that_is_checked_out_takes_the_alias_back_with_it(
    finished: Project, rerun: Rerun, tmp_path: Path, prefect_api: dict[str, str]
) -> None:
    project = rerun.copy(tmp_path / "project")
    challenger = lambda: str(project.mlflow().get_model_version_by_alias("graft", "challenger").version)  # noqa: E731
    before = finished.json("runs/register.json")["run_id"]
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    assert challenger() == "2"

    findings = {row["check"]: row for row in json.loads(project.graft_here("doctor", "--json").stdout)}
    assert findings["model"]["state"] == "warn"
    assert "graft run" in findings["model"]["todo"]
    assert "at version 2, not at version 1" in json.loads(project.graft_here("summary", "--json").stdout)["model_note"]

    told = project.graft("run", "--json", **prefect_api).stdout
    result = json.loads(told[told.index("{") :])
    assert challenger() == "1"
    assert [(stage["ran"], stage["run_id"]) for stage in result["stages"]][-1] == (False, before)


def test_a_package_that_is_a_version_already_is_no_second_one(project: Project) -> None:
    project.dvc("repro", "--single-item", "--force", "register")
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=30)

    (found,) = project.mlflow().search_model_versions("name = 'graft'")
    version = project.mlflow().get_model_version("graft", found.version)
    assert sorted(version.aliases) == ["challenger", "champion"]
    again = [run for run in project.runs() if run.data.tags.get("graft.stage") == "register"][-1]
    assert again.data.tags["graft.version"] == "1"
    assert [use["version"] for use in trace(project.root, again.info.run_id)["versions"]] == ["1"]


def test_a_run_killed_after_registering_is_not_finished_and_the_next_adds_no_version(project: Project) -> None:
    record = project.own_code() / "flows" / "stage" / "recorder_session.py"
    code = record.read_text(encoding="utf-8")
    call = "registration = register_model(self._tracker, self._run, name)"
    killed_after = f"{call}\n        import os\n\n        os.kill(os.getpid(), 9)"
    record.write_text(code.replace(call, killed_after), encoding="utf-8")
    project.set("head", l2_max=0.5)
    assert project.dvc("repro", check=False).returncode != 0
    assert [str(one.version) for one in project.mlflow().search_model_versions("name = 'graft'")] == ["2", "1"]
    killed = [run for run in project.runs() if run.data.tags.get("graft.stage") == "register"][-1]
    assert killed.info.status == "RUNNING"

    record.write_text(code, encoding="utf-8")
    assert project.repro() == ["register"]
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=30)

    assert [str(one.version) for one in project.mlflow().search_model_versions("name = 'graft'")] == ["2", "1"]
    assert project.mlflow().get_run(killed.info.run_id).info.status == "KILLED"
    assert project.runs()[-1].info.status == "FINISHED"


def test_going_back_to_earlier_parameters_makes_the_earlier_version_the_challenger(
    rerun: Rerun, tmp_path: Path
) -> None:
    project = rerun.copy(tmp_path / "project")
    project.git("checkout", "--quiet", "params.yaml")

    assert project.repro() == ["head", "audit", "finetune", "evaluate", "register"]
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=30)

    assert str(project.mlflow().get_model_version_by_alias("graft", "challenger").version) == "1"
    assert len(project.mlflow().search_model_versions("name = 'graft'")) == 2
    assert json.loads(project.graft_here("summary", "--json").stdout)["model"] == "graft version 1"


def test_a_clone_with_another_store_registers_the_package_that_it_pulled(project: Project, tmp_path: Path) -> None:
    clone = project.pushed_and_cloned(tmp_path)
    clone.dvc("pull")
    assert not (clone.root / ".graft" / "registration.json").exists()
    assert not (clone.root / "mlflow.db").exists()

    clone.graft_here("repro")

    (found,) = clone.mlflow().search_model_versions("name = 'graft'")
    version = clone.mlflow().get_model_version("graft", found.version)
    assert sorted(version.aliases) == ["challenger", "champion"]
    assert version.tags["dvc.package"] == clone.lock()["models/package"]
    assert version.tags["graft.digest"] == clone.json(".graft/registration.json")["digest"]
    assert clone.git("status", "--porcelain") == ""
    told = json.loads(clone.graft_here("summary", "--json").stdout)
    assert (told["model"], told["model_note"]) == ("graft version 1", "")


def test_a_model_that_cannot_be_used_gets_no_alias(project: Project) -> None:
    serving = project.own_code() / "tasks" / "register" / "package.py"
    broken = serving.read_text(encoding="utf-8").replace("def load_context(self, context):", RAISES)
    serving.write_text(broken, encoding="utf-8")

    done = project.dvc("repro", check=False)

    assert "the model cannot be used as MLflow has it" in done.stderr
    assert str(project.mlflow().get_model_version_by_alias("graft", "challenger").version) == "1"


RAISES = """def load_context(self, context):
        raise RuntimeError("it does not load")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_digest_survives_a_kill_before_or_after_mlflow_has_made_the_version(
    project: Project, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker, real = Tracker(project.root), mlflow.register_model

    def killed(*values: Any, **named: Any) -> None:
        if moment == "after":
            real(*values, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow, "register_model", killed)
        register_model(tracker, "", "another")
    registration = register_model(tracker, "", "another")

    (version,) = tracker.client.search_model_versions("name = 'another'")
    assert registration.digest == version.tags[integrity.TAG] != ""
    assert ledger.digest_of(project.root, key_of(version)) == registration.digest
    with fetched_model(tracker, version):
        pass


REGISTER = """
import sys
from pathlib import Path
from graft.flows.registry.registering import register_model
from graft.flows.tracking.tracker import Tracker
tracker = Tracker(Path.cwd())
print("ready", flush=True)
input()
print(register_model(tracker, "", "another").version)
"""


def test_a_trial_registers_nothing_until_graft_repro_does(project: Project) -> None:
    def names() -> list[str]:
        return sorted(model.name for model in project.mlflow().search_registered_models())

    done = project.dvc("exp", "run", "-S", "register.name=tried", "--name", "weaker", "register")
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)

    assert "`weaker` is a trial" in done.stderr
    assert "registered" not in project.json("runs/register.json")
    assert names() == ["graft"]
    project.graft_here("repro")
    assert names() == ["graft", "tried"]


def test_two_registrations_of_a_package_at_once_make_one_version(project: Project) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER],
            cwd=project.root,
            env=project.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"

    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    versions = {process.communicate()[0].strip() for process in both}

    assert versions == {"1"}
    (version,) = project.mlflow().search_model_versions("name = 'another'")
    assert sorted(project.mlflow().get_model_version("another", version.version).aliases) == ["challenger", "champion"]


def test_the_test_metrics_are_tied_to_the_logged_model(finished: Project) -> None:
    registration = finished.json(".graft/registration.json")
    model = finished.mlflow().get_logged_model(registration["model_uri"].removeprefix("models:/"))
    linked = {metric.key: (metric.value, metric.dataset_digest) for metric in model.metrics}

    value, digest = linked["test_accuracy"]
    assert value == finished.json("metrics/evaluate.json")["accuracy"]
    assert digest.endswith(".dir")


def test_signature_example_and_requirements_are_there(finished: Project) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{finished.root}/mlflow.db")
    info = mlflow.models.get_model_info(finished.json(".graft/registration.json")["model_uri"])

    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.input_names() == ["label", "score", "probabilities", "typicality"]
    assert info.saved_input_example_info is not None
    check_served("models:/graft/1", info.signature.outputs)
    requirements = (finished.root / "models" / "package" / "requirements.txt").read_text(encoding="utf-8")
    assert "openvino==" in requirements
    assert "torch" not in requirements
