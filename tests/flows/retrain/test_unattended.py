"""Unattended runs: new images, nothing new, a refusal; the user's checkout does not change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hook import listening
from projects import Project, ask, draw, made_repository, wait_for

from graft.flows.retrain.lock import alone
from graft.flows.versioning.git import git
from graft.tasks.common.core.paths import STAGES


@dataclass(frozen=True)
class Home:
    """A project with remotes, and what became of three nights.

    Attributes:
        nights: the output of `graft run --unattended --json`.
        states: those of all runs in MLflow after the first night, before which a run was killed.
        seen: the checkout's status and commit before and after.
        notices: what the webhook got.
    """

    project: Project
    folder: Path
    nights: list[dict[str, Any]]
    states: set[str]
    seen: list[tuple[str, str]]
    notices: list[dict[str, Any]]


def state_of(project: Project) -> tuple[str, str]:
    return project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")


def colleague(folder: Path) -> Project:
    """Somebody else's clone, at the newest commit, with the images."""
    clone = Project(folder / "colleague")
    if not clone.root.exists():
        subprocess.run(["git", "clone", "--quiet", str(folder / "remote.git"), str(clone.root)], check=True)
    clone.git("pull", "--quiet", "--rebase")
    clone.dvc("pull", "--quiet", "data/raw.dvc")
    return clone


def push(clone: Project, message: str) -> None:
    clone.dvc("add", "data/raw")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message", message)
    clone.dvc("push", "--quiet", "data/raw.dvc")
    clone.git("push", "--quiet", "origin", "main")


def push_batch(folder: Path, prefix: str, count: int, first: int, shift: int = 0) -> None:
    """A colleague pushes images of all colours as many; with a shift, each under another colour's name."""
    clone, names = colleague(folder), ("red", "green", "blue")
    for number in range(count):
        name = names[(number + shift) % 3]
        draw(clone.root / "data" / "raw" / name / f"{prefix}{number}.png", number % 3, first + number)
    push(clone, "a bad batch" if shift else f"{count} images")


@pytest.fixture(scope="module")
def home(finished: Project, tmp_path_factory: pytest.TempPathFactory, prefect_api: dict[str, str]) -> Iterator[Home]:
    """Night 1: thirty new images, after a run that was killed; night 2: nothing; night 3: a batch whose labels are
    wrong."""
    folder = tmp_path_factory.mktemp("home")
    with listening() as hook:
        project = finished.copy(folder / "project")
        project.set("retrain", notify=[hook.address])
        project.set("gate", margin=0.6)  # the test has a dozen images
        made_repository(project, folder)
        (project.root / "params.yaml").write_text("a user is in the middle of: [something", encoding="utf-8")
        seen, nights = [state_of(project)], []

        push_batch(folder, "n", 30, 500)
        kill_at_work(project, prefect_api)
        nights.append(unattended_dirty(project, prefect_api))
        states = {run.info.status for run in project.runs()}
        nights.append(unattended_dirty(project, prefect_api))
        push_batch(folder, "w", 60, 900, shift=1)
        nights.append(unattended_dirty(project, prefect_api))
        seen.append(state_of(project))
        yield Home(project, folder, nights, states, seen, hook.got)


ONCE = """
import json, sys
from graft.flows.retrain.flow import retrain
state = retrain(sys.argv[1], True, return_state=True)
result = state.result() if state.is_completed() else None
print(json.dumps(result if isinstance(result, dict) else {"state": state.name, "message": state.message}))
"""


def unattended_dirty(project: Project, prefect_api: dict[str, str]) -> dict[str, Any]:
    """As a deployment runs it: the checkout's own params.yaml, which is half written, is not asked."""
    done = project.call(sys.executable, "-c", ONCE, str(project.root), **prefect_api)
    return json.loads(done.stdout.strip().splitlines()[-1])


def kill_at_work(project: Project, prefect_api: dict[str, str]) -> None:
    """Starts such a run, and kills it once its first stage has written something."""
    flow = subprocess.Popen(
        [sys.executable, "-c", ONCE, str(project.root)], cwd=project.root, env=project.environment(**prefect_api)
    )
    tree = project.root / ".graft" / "worktrees" / "retrain"
    wait_for(lambda: (tree / "data" / "manifest" / "manifest.parquet").exists())
    flow.kill()
    flow.wait()


def pushed(home: Home) -> Project:
    """A fresh clone of what is in the remote, with its data."""
    clone = Project(home.folder / "fresh")
    if not clone.root.exists():
        subprocess.run(["git", "clone", "--quiet", str(home.folder / "remote.git"), str(clone.root)], check=True)
        clone.dvc("pull", "--quiet")
    return clone


def test_the_checkout_is_as_it_was(home: Home) -> None:
    assert home.seen[0] == home.seen[1]


def test_new_images_make_a_new_champion(home: Home) -> None:
    one = home.nights[0]
    assert {stage["stage"] for stage in one["stages"] if stage["ran"]} == set(STAGES)
    assert (one["outcome"]["what"], one["outcome"]["version"], one["outcome"]["previous"]) == ("promoted", "2", "1")
    assert [row["check"] for row in one["checks"]] == [
        "leaks", "labels of new images", "drift",
        "gain", "earlier images", "new test images", "earlier looks", "class list", "minimum recall", "classes",
        "calibration", "latency",
    ]  # fmt: skip
    assert one["checks"][3]["found"].count("p = ") == 2


def test_the_plan_says_which_images_came(home: Home) -> None:
    """The list of the images comes from DVC's remote before the plan is made."""
    note = home.project.mlflow().get_run(home.nights[0]["parent_run_id"]).data.tags["mlflow.note.content"]
    assert "+30 images (10 in class" in note
    assert pushed(home).git("log", "--format=%s").splitlines()[2].startswith("Retrain: +30 images")


def test_an_unchanged_world_is_nothing_to_do(home: Home) -> None:
    two = home.nights[1]
    assert two["state"] == "Completed"
    assert two["message"].startswith("nothing to do")
    assert home.nights[0]["parent_run_id"][:8] in two["message"]


def test_a_mislabelled_batch_is_refused_and_the_champion_stays(home: Home) -> None:
    three = home.nights[2]
    assert (three["outcome"]["what"], three["outcome"]["version"]) == ("refused", "3")
    assert str(home.project.mlflow().get_model_version_by_alias("graft", "champion").version) == "2"
    assert "failed" in {row["outcome"] for row in three["checks"]}


def test_what_is_pushed_is_whole(home: Home) -> None:
    clone = pushed(home)
    assert json.loads(clone.dvc("status", "--json").stdout or "{}") == {}
    messages = clone.git("log", "--format=%s").splitlines()
    assert [message.split(":")[0] for message in messages[:3]] == ["Retrain", "a bad batch", "Retrain"]
    assert "[skip ci]" in clone.git("log", "-1", "--format=%b")


def test_the_ledger_is_pushed_and_the_same_in_mlflow(home: Home) -> None:
    lines = [json.loads(line) for line in (pushed(home).root / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["what"], line["version"]) for line in lines] == [("first", "1"), ("promoted", "2"), ("refused", "3")]
    tags = home.project.mlflow().get_model_version("graft", "3").tags
    assert json.loads(tags[f"graft.ledger.{lines[-1]['id']}"]) == lines[-1]
    assert lines[1]["flow_run_url"].startswith("http")
    assert 0 < lines[1]["test_images"] == len(lines[1]["test_sample"]) <= lines[2]["test_images"]


def test_runs_and_versions_name_the_commit_that_holds_their_result(home: Home) -> None:
    client = home.project.mlflow()
    commit = home.nights[0]["commit"]
    assert client.get_run(home.nights[0]["parent_run_id"]).data.tags["git.result"] == commit
    version = client.get_model_version("graft", "2")
    assert version.tags["git.result"] == commit
    assert git(home.folder / "remote.git", "cat-file", "-t", commit, doing="a test") == "commit"


def test_mlflows_pages_tell_the_whole_story(home: Home) -> None:
    client = home.project.mlflow()
    parent = client.get_run(home.nights[2]["parent_run_id"])
    assert [each.dataset.digest for each in parent.inputs.dataset_inputs] == [
        client.get_model_version("graft", "3").tags["dvc.raw"]
    ]
    note = parent.data.tags["mlflow.note.content"]
    assert "version 3 of `graft` was refused" in note
    assert "| check | outcome |" in note
    assert "(#/models/graft/versions/3)" in note
    assert "| preprocess |" in note
    described = client.get_model_version("graft", "2").description
    assert "Test accuracy" in described
    assert "is the champion: test accuracy" in described
    assert "Compared with version 1." in described
    assert client.get_model_version("graft", "2").tags["graft.gate"].startswith("passed")


def test_promotion_and_refusal_are_notified(home: Home) -> None:
    assert [notice["about"] for notice in home.notices] == ["promotion", "refusal"]
    assert "| gain |" in home.notices[0]["text"]
    assert home.notices[1]["facts"]["version"] == "3"
    assert f"/runs/{home.nights[2]['parent_run_id']}?" in home.notices[1]["links"]["MLflow"]


def test_the_flow_runs_page_has_the_gate(home: Home, prefect_api: dict[str, str]) -> None:
    tag = home.project.mlflow().get_run(home.nights[2]["parent_run_id"]).data.tags["prefect.flow_run_id"]
    artifacts = ask(prefect_api, lambda client: client.read_artifacts())
    mine = {artifact.key: artifact.data for artifact in artifacts if str(artifact.flow_run_id) == tag}
    assert "earlier images" in mine["gate"]
    assert "was refused" in mine["summary"]
    assert "New test images: accuracy " in mine["summary"], "a part of the batch has come into the test"


def test_the_lock_is_given_back(home: Home) -> None:
    assert git(home.folder / "remote.git", "for-each-ref", "refs/graft", doing="a test") == ""


def test_of_two_runs_one_works_and_the_other_says_so(home: Home, prefect_api: dict[str, str]) -> None:
    with alone(home.project.root, "origin"):
        other = unattended_dirty(home.project, prefect_api)
    assert other["state"] == "Cancelled"
    assert other["message"].startswith("another run is at work on this repository: process ")


def test_a_failure_is_notified_and_the_next_run_goes_on(home: Home, prefect_api: dict[str, str]) -> None:
    """The last night: git's remote does not answer, then it does."""
    remote = home.folder / "remote.git"
    remote.rename(home.folder / "away.git")
    try:
        done = home.project.call(sys.executable, "-c", ONCE, str(home.project.root), check=False, **prefect_api)
    finally:
        (home.folder / "away.git").rename(remote)
    assert json.loads(done.stdout.strip().splitlines()[-1])["state"] == "Failed"
    assert home.notices[-1]["about"] == "failure"
    assert "remote.git" in home.notices[-1]["text"]
    assert unattended_dirty(home.project, prefect_api)["message"].startswith("nothing to do")


def test_a_project_that_is_not_under_git_is_refused(project: Project, prefect_api: dict[str, str]) -> None:
    (project.root / ".git").rename(project.root / ".away")
    done = project.graft("run", "--unattended", check=False, **prefect_api)
    assert done.returncode == 2
    assert "cannot be retrained unattended" in done.stderr


def test_a_killed_run_leaves_nothing_that_hinders_the_next(home: Home) -> None:
    assert home.nights[0]["outcome"]["version"] == "2"
    assert home.states == {"FINISHED", "KILLED"}
