"""The drill of kills (kill_drill.py), with a few of them."""

from __future__ import annotations

import random
from pathlib import Path

from kill_drill import Tally, kill_import, kill_init, kill_store
from projects import Project, draw_classes


def check(tally: Tally, done: int) -> None:
    assert tally.wrong == []
    assert tally.done == done


def test_a_project_is_whole_after_a_kill_of_init(tmp_path: Path) -> None:
    check(kill_init(tmp_path / "inits", 1, random.Random(0)), 1)


def test_the_store_is_whole_after_a_kill(tmp_path: Path) -> None:
    check(kill_store(tmp_path / "stores", 2, random.Random(0)), 2)


def test_the_images_are_those_of_the_import_after_a_kill(empty_project: Project, tmp_path: Path) -> None:
    source = draw_classes(tmp_path / "source", 2)
    empty_project.graft_here("import", str(source))

    check(kill_import(empty_project, source, 2, random.Random(0)), 2)
