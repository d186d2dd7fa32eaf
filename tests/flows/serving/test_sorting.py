"""Images in folders by what a model says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sharded import write_shard

from graft.flows.serving.predict import Answer
from graft.flows.serving.sorting import Sorter, folder_of, sorter_for
from graft.flows.serving.sources import Named
from graft.tasks.common.core.errors import GraftError


def answer(file: Path, error: str = "", **found: Any) -> Answer:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(str(file), encoding="utf-8")
    return Answer(Named(str(file), file), found, error)


def tree(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


def test_images_go_into_the_folders_of_their_classes(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "to", link=False)

    sorter.take(answer(tmp_path / "a.png", label="ant", abstain=False))
    sorter.take(answer(tmp_path / "b.png", label="bee", abstain=True))
    sorter.take(answer(tmp_path / "c.png", labels=["ant", "bee"]))
    sorter.take(answer(tmp_path / "d.png", labels=[]))
    sorter.take(answer(tmp_path / "e.png", error="not an image"))

    assert tree(tmp_path / "to") == ["_none/d.png", "_not sure/b.png", "ant/a.png", "ant/c.png", "bee/c.png"]


def test_anomalies_are_sorted_from_good_images(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "to", link=False)

    sorter.take(answer(tmp_path / "a.png", score=1.0, p_value=0.5, anomalous=False))
    sorter.take(answer(tmp_path / "b.png", score=3.0, p_value=0.01, anomalous=True))

    assert tree(tmp_path / "to") == ["anomalous/b.png", "good/a.png"]


def test_two_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "to", link=True)

    for folder in ("x", "y", "z"):
        sorter.take(answer(tmp_path / folder / "a.png", label="ant"))

    assert tree(tmp_path / "to") == ["ant/a-2.png", "ant/a-3.png", "ant/a.png"]
    assert (tmp_path / "to" / "ant" / "a-3.png").readlink() == tmp_path / "z" / "a.png"


@pytest.mark.parametrize(
    ("label", "folder"),
    [("ant", "ant"), ("a/b", "a%2Fb"), ("../x", "..%2Fx"), ("..", "%2E%2E"), (".", "%2E"), ("é", "é"), ("", "%00")],
)
def test_no_class_leaves_the_folder(label: str, folder: str) -> None:
    assert folder_of(label) == folder


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")

    with pytest.raises(GraftError, match="a new or an empty folder"):
        Sorter(tmp_path, link=False)


@pytest.mark.parametrize(("task", "folder", "link"), [("regression", "to", False), ("classification", None, True)])
def test_what_makes_no_sense_is_refused(tmp_path: Path, task: str, folder: str | None, link: bool) -> None:
    with pytest.raises(GraftError):
        sorter_for(SimpleNamespace(task=task), tmp_path / folder if folder else None, link=link)  # type: ignore[arg-type]


def test_images_in_shards_are_copied_and_cannot_be_links(tmp_path: Path) -> None:
    write_shard(tmp_path / "raw", {"x/a.png": b"content"})
    member = tmp_path / "raw" / "x" / "a.png"
    one = Answer(Named(str(member), member), {"label": "ant"}, "")

    Sorter(tmp_path / "to", link=False).take(one)
    assert (tmp_path / "to" / "ant" / "a.png").read_bytes() == b"content"
    with pytest.raises(GraftError, match=r"no file that a link could lead to\n.*--link"):
        Sorter(tmp_path / "links", link=True).take(one)
