"""Tables of answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from graft.flows.serving import writing as module
from graft.flows.serving.columns import Columns
from graft.flows.serving.predict import Answer
from graft.flows.serving.sources import Named
from graft.flows.serving.writing import check_output, writing
from graft.tasks.common.core.errors import GraftError

FOUND = {"label": 'an "ant", big', "score": 0.75, "probabilities": {'an "ant", big': 0.75, "bee": 0.25}}
COLUMNS = Columns(
    SimpleNamespace(task="classification", classes=list(FOUND["probabilities"]), columns=list(FOUND))  # type: ignore[arg-type]
)
ANSWERS = [
    Answer(Named("a;b.png", Path("a;b.png")), FOUND),
    Answer(Named("c\td.png", Path("c\td.png")), {}, "not an image"),
]


def written(output: Path) -> None:
    with writing(output, COLUMNS, None, ["x"]) as write:
        for answer in ANSWERS:
            write(answer)


@pytest.mark.parametrize(
    ("name", "read"),
    [("o.csv", pd.read_csv), ("o.TSV", lambda file: pd.read_csv(file, sep="\t")), ("o.parquet", pd.read_parquet)],
)
def test_a_table_has_a_row_for_each_file(tmp_path: Path, name: str, read) -> None:
    written(tmp_path / name)

    table = read(tmp_path / name)

    assert list(table["path"]) == ["a;b.png", "c\td.png"]
    assert table["label"][0] == FOUND["label"]
    assert table["score"][0] == 0.75
    assert pd.isna(table["label"][1])
    assert table["error"][1] == "not an image"


def test_a_parquet_file_is_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 1)
    written(tmp_path / "o.parquet")

    assert len(pd.read_parquet(tmp_path / "o.parquet")) == 2


def test_json_lines_have_all_probabilities(tmp_path: Path) -> None:
    written(tmp_path / "o.jsonl")

    first, second = map(json.loads, (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines())

    assert first == {"path": "a;b.png", **FOUND}
    assert second == {"path": "c\td.png", "error": "not an image"}


def test_a_table_that_was_interrupted_does_not_replace_the_former(tmp_path: Path) -> None:
    written(tmp_path / "o.csv")
    before = (tmp_path / "o.csv").read_bytes()

    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "o.csv", COLUMNS, None, ["x"]) as write:
        write(ANSWERS[0])
        raise KeyboardInterrupt

    assert (tmp_path / "o.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["o.xlsx", "o", "none/o.csv"])
def test_another_kind_of_table_is_refused_before_anything_is_predicted(tmp_path: Path, name: str) -> None:
    with pytest.raises(GraftError, match="predictions cannot be written"):
        check_output(tmp_path / name)


def test_json_on_the_terminal_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"--output FILE\.jsonl"):
        check_output(tmp_path / "o.csv", as_json=True)
