"""What `--log` keeps."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from projects import Project, draw, wait_for
from server_process import serving

from graft.flows.serving.image_list import list_source
from graft.flows.serving.server.journal import Journal, is_unsure, prepare, trim
from graft.flows.serving.server.kept import kept_at_random
from graft.flows.serving.server.metrics import Metrics
from graft.flows.serving.server.settings import Settings
from graft.tasks.common.core.errors import DataError, GraftError

ANSWER = {"label": "red", "score": 0.9, "probabilities": {"red": 0.9, "blue": 0.1}, "typicality": 0.4}


@pytest.fixture
def journal(tmp_path: Path) -> Callable[..., Journal]:
    return lambda **more: Journal(Settings(log=str(tmp_path / "log"), **more), Metrics())


def answers(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted((folder / "answers").glob("*.parquet"))])


def test_answers_are_kept_with_the_hash_of_their_picture(tmp_path: Path, journal: Callable[..., Journal]) -> None:
    opened = journal()
    opened.keep(b"picture", ANSWER, "3", 0.01)
    opened.close()
    (row,) = answers(tmp_path / "log").to_dict("records")

    assert row["image"] == hashlib.md5(b"picture").hexdigest()
    assert (row["label"], row["score"], row["typicality"], row["model"], row["seconds"]) == ("red", 0.9, 0.4, "3", 0.01)
    assert dict(row["probabilities"]) == pytest.approx(ANSWER["probabilities"])
    assert row["abstain"] is None
    assert row["time"].tz is not None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.8}}, {"label": "a|b"}),
        ({"value": 2.5, "low": 1.0, "high": 3.0}, {"value": 2.5}),
    ],
)
def test_answers_of_each_task_are_kept(
    tmp_path: Path, journal: Callable[..., Journal], answer: dict[str, Any], expected: dict[str, Any]
) -> None:
    opened = journal()
    opened.keep(b"picture", answer, "", 0.01)
    opened.close()
    (row,) = answers(tmp_path / "log").to_dict("records")

    assert {name: row[name] for name in expected} == expected


def test_answers_are_on_disk_while_the_server_runs(tmp_path: Path, journal: Callable[..., Journal]) -> None:
    opened = journal(log_seconds=0.05)
    opened.keep(b"1", ANSWER, "3", 0.01)
    wait_for(lambda: list((tmp_path / "log" / "answers").glob("*.parquet")), seconds=20)
    opened.keep(b"2", ANSWER, "3", 0.01)
    opened.close()

    assert len(answers(tmp_path / "log")) == 2
    assert len(list((tmp_path / "log" / "answers").iterdir())) == 1


def test_pictures_are_kept_by_policy(tmp_path: Path, journal: Callable[..., Journal]) -> None:
    unsure = {**ANSWER, "probabilities": {"red": 0.55, "blue": 0.45}}
    opened = journal(keep_unsure=True)
    opened.keep(b"sure", ANSWER, "3", 0.01)
    opened.keep(b"unsure", unsure, "3", 0.01)
    opened.close()
    found = [file.read_bytes() for file in (tmp_path / "log" / "images").rglob("*") if file.is_file()]

    assert found == [b"unsure"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ANSWER, False),
        ({**ANSWER, "abstain": True}, True),
        ({**ANSWER, "typicality": 0.01}, True),
        ({**ANSWER, "set": ["red", "blue"]}, True),
        ({"value": 1.0}, False),
    ],
)
def test_what_counts_as_unsure(answer: dict[str, Any], expected: bool) -> None:
    assert is_unsure(answer) is expected


def test_the_oldest_files_go_when_the_folder_is_full(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "log")
    for number in range(4):
        file = folder / "answers" / f"{number}.parquet"
        file.write_bytes(bytes(100))
        os.utime(file, (number, number))
    trim(folder, 250)

    assert sorted(file.name for file in (folder / "answers").iterdir()) == ["2.parquet", "3.parquet"]


def test_a_disk_that_fails_stops_nothing(tmp_path: Path, journal: Callable[..., Journal]) -> None:
    opened = journal()
    (tmp_path / "log" / "answers").rmdir()
    (tmp_path / "log" / "answers").write_text("in the way")
    opened.keep(b"picture", ANSWER, "3", 0.01)
    opened.close()

    assert b"graft_log_lost_total 1.0" in opened._metrics.page()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(GraftError, match="other files than a log"):
        prepare(tmp_path)


def test_drift_reads_the_pictures_that_were_kept_at_random(finished: Project, project: Project, tmp_path: Path) -> None:
    contents = []
    for number in range(100, 125):
        draw(tmp_path / "new" / f"{number}.png", number % 3, number)
        contents.append((tmp_path / "new" / f"{number}.png").read_bytes())
    words = ("--model", str(finished.root / "models" / "package"), "--log", "log", "--keep", "random:1")
    with serving(tmp_path, *words) as served:
        assert [served.ask("POST", "/predict", content).status for content in contents] == [200] * 25
        assert served.stop() == 0
    hashes = {hashlib.md5(content).hexdigest() for content in contents}
    told = json.loads(project.graft_here("drift", str(tmp_path / "log"), "--json", check=False).stdout)

    assert set(answers(tmp_path / "log")["image"]) == hashes
    assert set(list_source(tmp_path / "log")["name"].str[-32:]) == hashes
    assert told["images"] == 25


def test_drift_reads_no_pictures_that_were_chosen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kept at random"):
        kept_at_random(prepare(tmp_path / "log"))
