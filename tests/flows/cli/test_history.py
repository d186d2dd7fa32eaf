"""`graft summary` as a user types it."""

from __future__ import annotations

import json

from projects import Project


def test_summary_before_the_first_run_says_what_to_do(empty_project: Project) -> None:
    done = empty_project.graft_here("summary", check=False)

    assert done.returncode == 2
    assert "run `graft repro`" in done.stderr


def test_summary_gives_accuracy_and_seconds_as_text_and_as_json(finished: Project) -> None:
    found = json.loads(finished.graft_here("summary", "--json").stdout)

    assert found["accuracy"] == finished.json("metrics/evaluate.json")["accuracy"]
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert set(found["seconds"]) == {"preprocess", "features", "head", "audit", "finetune", "evaluate", "register"}
    assert found["unseen"] == finished.json("metrics/features.json")["unseen"] > 0
    assert f"{found['unseen']:.0%} of the area" in finished.graft_here("summary").stdout
    assert f"{found['accuracy']:.1%}" in finished.graft_here("summary").stdout


def test_summary_answers_without_mlflow(finished: Project) -> None:
    assert not {"mlflow", "torch", "pandas", "dvc", "ray"} & finished.loaded_by("summary")
