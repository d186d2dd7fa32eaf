"""`graft sample` and `graft import` as a user types them."""

from __future__ import annotations

from pathlib import Path

from projects import Project, draw_classes

from graft.flows.cli import data


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


def test_many_classes_are_told_by_the_first_ten() -> None:
    classes = {f"class {number:04}": 3 for number in range(1_010)}

    told = data._in_lines({"classes": classes, "splits": {"train": classes}})

    assert told["classes"].startswith("class 0000 3, class 0001 3, ")
    assert told["classes"].endswith("class 0009 3 and 1,000 more")
    assert told["splits"] == {"train": told["classes"]}
    assert data._in_lines({"classes": {"ant": 3}})["classes"] == {"ant": 3}
