"""The commands that run the pipeline, as a user types them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest
import requests
from projects import Project, copy_prefect_database, free_port, wait_for

from graft.flows.runtime.servers import answers


def test_params_shows_values_and_meanings(finished: Project) -> None:
    assert json.loads(finished.graft_here("params", "--json").stdout)["head"]["strengths"] == 7
    shown = finished.graft_here("params").stdout
    assert "head.strengths" in shown
    assert "preprocess.placeholder_share" in shown, "no name is cut"


def test_params_finds_a_parameter_by_words_of_its_name_or_meaning_with_what_it_takes(finished: Project) -> None:
    shown = finished.graft_here("params", "LEARNING", "rate").stdout

    assert shown.startswith("finetune.learning_rate")
    for words in ("value", "default    ", "`auto` or number, > 0", "cosine decay"):
        assert words in shown


def test_params_finds_parameters_without_a_project(tmp_path) -> None:
    outside = Project(tmp_path)

    found, *_ = json.loads(outside.graft_here("params", "strengths", "--json").stdout)

    assert found["name"] == "head.strengths"
    assert found["default"] == "45"
    assert "value" not in found
    assert "value" not in outside.graft_here("params", "strengths").stdout.split("default")[0]


def test_params_of_a_misspelt_word_names_the_nearest(finished: Project) -> None:
    done = finished.graft_here("params", "strenghts", check=False)

    assert done.returncode == 2
    assert "did you mean `strengths`?" in done.stderr


def test_doctor_finds_a_healthy_project_healthy(project: Project) -> None:
    findings = {row["check"]: row for row in json.loads(project.graft_here("doctor", "--json").stdout)}

    assert findings["images"]["state"] == findings["packages"]["state"] == findings["mlflow"]["state"] == "ok"
    assert findings["dvc"]["state"] == "warn", "there is no remote"


def test_doctor_says_what_is_missing_and_what_to_do(empty_project: Project) -> None:
    empty_project.set("features", weights="data/weights/none.safetensors")

    done = empty_project.graft_here("doctor", "--json", check=False)

    assert done.returncode == 1
    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert (findings["images"]["state"], findings["weights"]["state"]) == ("fail", "fail")
    assert "graft import" in findings["images"]["todo"]


def test_a_check_that_breaks_down_does_not_hide_the_next(empty_project: Project) -> None:
    (empty_project.own_code() / "flows" / "registry" / "models.py").write_text(
        "import no_such_package\n", encoding="utf-8"
    )
    shutil.rmtree(empty_project.root / ".dvc")
    (empty_project.root / ".dvc").write_text("a file", encoding="utf-8")
    (empty_project.root / "models" / "package").mkdir(parents=True)
    (empty_project.root / "mlflow.db").touch()

    done = empty_project.graft("doctor", "--json", check=False)

    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert "no_such_package" in findings["model"]["found"]
    assert findings["disk"]["state"] == "ok"


@pytest.mark.parametrize("command", ["repro", "run", "status"])
def test_a_misspelt_parameter_is_refused_before_anything_is_removed(project: Project, command: str) -> None:
    project.set("preprocess", test_fracton=0.2)

    done = project.graft_here(command, check=False)

    assert done.returncode == 2
    assert "test_fracton" in done.stderr
    assert (project.root / "data" / "manifest" / "manifest.parquet").is_file()


def test_run_does_not_start_without_mlflow(project: Project) -> None:
    project.set("head", l2_max=0.5)

    done = project.graft_here("run", check=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert done.returncode == 2
    assert "MLflow cannot be reached" in done.stderr
    assert not (project.root / ".graft" / "prefect-server.log").exists(), "nothing that would have to be tried again"


def test_repro_passes_dvcs_words_and_exit_code_on(project: Project) -> None:
    assert "up to date" in project.graft("repro").stdout
    assert project.graft("repro", "no-such-stage", check=False).returncode != 0


def test_repro_without_images_says_how_to_bring_some(empty_project: Project) -> None:
    done = empty_project.graft_here("repro", check=False)

    assert done.returncode == 2
    assert "graft import" in done.stderr


@pytest.mark.parametrize(
    "words", [["ui", "--mlflow-port"], ["ui", "--prefect-port"], ["schedule", "--cron", "0 2 * * *", "--port"]]
)
def test_a_port_out_of_range_is_refused_as_such(empty_project: Project, words: list[str]) -> None:
    done = empty_project.graft_here(*words, "99999", check=False)

    assert done.returncode == 2
    assert "65535" in done.stderr
    assert "in use" not in done.stderr


def test_ui_serves_both_pages_and_ends_cleanly(project: Project, prefect_api: dict[str, str]) -> None:
    copy_prefect_database(prefect_api, project)
    mlflow_port, prefect_port = free_port(), free_port()
    words = ["ui", "--mlflow-port", str(mlflow_port), "--prefect-port", str(prefect_port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", *words],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{prefect_port}/api/health"))
        query = urllib.request.Request(
            f"http://127.0.0.1:{mlflow_port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=graft"
        )
        with urllib.request.urlopen(query) as reply:
            assert json.load(reply)["experiment"]["name"] == "graft"
        for foreign in ({"Host": "evil.example.org"}, {"Origin": "http://evil.example.org"}):
            search = query.full_url.partition("get-by-name")[0] + "search"
            assert requests.post(search, json={"max_results": 1}, headers=foreign, timeout=10).status_code == 403
        told = [process.stdout.readline() for _ in range(3)]  # type: ignore[union-attr]
        assert str(mlflow_port) in told[0]
        assert str(prefect_port) in told[1]
        login = (project.root / ".graft" / "prefect-login").read_text(encoding="utf-8").strip()
        assert told[2] == f"Log in to Prefect with the content of {project.root / '.graft' / 'prefect-login'}\n"
        url = f"http://127.0.0.1:{prefect_port}/api/admin/version"
        assert requests.get(url, timeout=10).status_code == 401
        assert requests.get(url, auth=tuple(login.split(":")), timeout=10).status_code == 200  # type: ignore[arg-type]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    logs = [file.read_text(encoding="utf-8") for file in (project.root / ".graft").glob("*.log")]
    assert not any(login.partition(":")[2] in text for text in [*told, rest, *logs]), "the password is in no output"
    assert not answers(f"http://127.0.0.1:{mlflow_port}/health")
    assert not answers(f"http://127.0.0.1:{prefect_port}/api/health")
    left = [
        process.info for process in psutil.process_iter(["cwd", "cmdline"]) if process.info["cwd"] == str(project.root)
    ]
    assert left == []
