"""`graft sample` and `graft import` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import Project, draw_classes
from typer.testing import CliRunner

from graft.flows.cli import data
from graft.flows.cli.main import app
from graft.flows.ingest import importing


def test_names_in_square_brackets_are_shown_as_they_are(empty_project: Project, tmp_path: Path) -> None:
    draw_classes(tmp_path / "source", each=1)
    (tmp_path / "source" / "red").rename(tmp_path / "source" / "[red]")

    told = empty_project.graft_here("import", str(tmp_path / "source"), MLFLOW_TRACKING_URI="http://127.0.0.1:9").stdout
    assert "[red]: 1" in told


def test_replace_and_add_exclude_each_other(empty_project: Project, tmp_path: Path) -> None:
    done = empty_project.graft_here("import", str(tmp_path), "--replace", "--add", check=False)

    assert done.returncode == 2
    assert "exclude each other" in done.stderr
    assert "leave one of them out" in done.stderr


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["x"], None),
        (["x", "--shards"], 256),
        (["--shards", "x"], 256),
        (["--shards", "64", "x"], 64),
        (["x", "--shards=64", "--add"], 64),
    ],
)
def test_shards_may_have_a_size(
    empty_project: Project, words: list[str], size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def imported(*_: object, shards: int | None, **__: object) -> dict[str, object]:
        given.append(shards)
        return {}

    monkeypatch.setattr(importing, "import_images", imported)
    done = CliRunner().invoke(app, ["import", "-C", str(empty_project.root), *words])

    assert (done.exit_code, given) == (0, [size]), done.output


def test_images_are_packed_and_unpacked_in_place(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    draw_classes(empty_project.root / "data" / "raw", each=1)

    for words, shards in ((["shard", "1"], 1), (["unshard"], 0)):
        done = CliRunner().invoke(app, [*words, "--json", "-C", str(empty_project.root)])
        told = json.loads(done.stdout)
        assert (told["images"], told["shards"]) == (3, shards)
        assert "splits and cached features stay" in told["unchanged"]
    assert len([*(empty_project.root / "data" / "raw").rglob("*.png")]) == 3


def test_many_classes_are_told_by_the_first_ten() -> None:
    classes = {f"class {number:04}": 3 for number in range(1_010)}

    told = data._in_lines({"classes": classes, "splits": {"train": classes}})

    assert told["classes"].startswith("class 0000 3, class 0001 3, ")
    assert told["classes"].endswith("class 0009 3 and 1,000 more")
    assert told["splits"] == {"train": told["classes"]}
    assert data._in_lines({"classes": {"ant": 3}})["classes"] == {"ant": 3}
