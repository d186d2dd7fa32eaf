"""Answers of MLflow that are kept: asked for once, and again when something they depend on has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from projects import Project

from graft.flows.tracking.answers import kept_answer


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"runs")
    return tmp_path


def answers(root: Path, *questions: str, depends_on: tuple[Path, ...] = ()) -> list[int]:
    """How often each question, in turn, had been asked by then."""
    asked: list[str] = []

    def ask(question: str) -> int:
        asked.append(question)
        return len(asked)

    return [kept_answer(root, question, depends_on, lambda question=question: ask(question)) for question in questions]


def test_the_same_question_is_asked_once(root: Path) -> None:
    assert answers(root, "why", "why", "why") == [1, 1, 1]


def test_another_argument_is_another_question(root: Path) -> None:
    assert answers(root, "why 1", "why 2", "why 2", "ledger", "why 2") == [1, 2, 2, 3, 2]


def test_a_write_to_the_store_asks_again(root: Path) -> None:
    assert answers(root, "ledger") == [1]
    (root / "mlflow.db").write_bytes(b"other runs")
    assert answers(root, "why", "ledger") == [1, 2]


def test_a_file_that_comes_or_changes_asks_again(root: Path) -> None:
    file = root / "ledger.jsonl"
    assert answers(root, "x", "ledger", depends_on=(file,)) == [1, 2]
    file.write_text("{}", encoding="utf-8")
    assert answers(root, "ledger", depends_on=(file,)) == [1]
    os.utime(file, ns=(1, 1))
    assert answers(root, "x", "y", "ledger", depends_on=(file,)) == [1, 2, 3]


def test_an_answer_that_was_cut_short_asks_again(root: Path) -> None:
    answers(root, "ledger")
    (root / ".graft" / "cache" / "answers" / "ledger.json").write_text('{"sta', encoding="utf-8")

    assert answers(root, "x", "ledger") == [1, 2]


def test_an_answer_that_is_not_final_is_not_kept(root: Path) -> None:
    asked = iter([1, 2, 3])
    found = [kept_answer(root, "why", (), lambda: next(asked), lambda answer: answer > 1) for _ in range(3)]

    assert found == [1, 2, 2]


def test_a_server_is_always_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert answers(root, "ledger", "ledger") == [1, 2]


def test_why_and_ledger_ask_mlflow_once_for_each_state_of_the_store(project: Project) -> None:
    code = (
        "import atexit, sys; from graft.flows.cli import main;"
        "atexit.register(lambda: print('mlflow' in sys.modules)); main.main()"
    )

    def told(command: str) -> list[str]:
        return project.call("python", "-c", code, command).stdout.splitlines()

    for command in ("why", "ledger"):
        first, second = told(command), told(command)
        assert (first[-1], second[-1]) == ("True", "False")
        assert first[:-1] == second[:-1]
    client = project.mlflow()
    version = client.get_model_version_by_alias("graft", "champion")
    client.set_model_version_tag("graft", version.version, "by", "hand")
    assert told("ledger")[-1] == told("why")[-1] == "True"
