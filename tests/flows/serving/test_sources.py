"""What `graft predict` takes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from projects import draw_tiles
from sharded import write_shard

from graft.flows.backbones.classify import files_of
from graft.flows.serving.image_list import list_source
from graft.flows.serving.sources import files_in, images_below
from graft.tasks.common.core.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.png", "b.png", ".hidden.png", "in/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str, lines: str = "") -> list[str]:
    return [found.name for found in files_in(paths, io.StringIO(lines))]


def test_files_keep_their_names_and_order(folder: Path) -> None:
    assert names("b.png", "a.png", "b.png") == ["b.png", "a.png", "b.png"]


def test_a_folder_is_all_its_files_that_are_not_hidden(folder: Path) -> None:
    assert names(".") == ["a.png", "b.png", "in/c.png"]


def test_a_quoted_pattern_is_expanded(folder: Path) -> None:
    assert names("**/*.png") == ["a.png", "b.png", "in/c.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "d[1].png").write_bytes(b"x")

    assert names("d[1].png") == ["d[1].png"]


def test_a_list_on_standard_input_has_a_path_per_line(folder: Path) -> None:
    assert names("-", lines="a.png\n\nname with spaces .png\r\n") == ["a.png", "name with spaces .png"]


def test_a_table_names_files_relative_to_itself(folder: Path) -> None:
    (folder / "in" / "list.csv").write_text("File Name;note\nc.png;1\n..\\a.png;2\n", encoding="utf-8")

    found = files_in(["in/list.csv"], io.StringIO())

    assert [each.file.resolve() for each in found] == [folder / "in" / "c.png", folder / "a.png"]


def test_a_table_without_paths_is_refused(folder: Path) -> None:
    (folder / "list.csv").write_text("a,b\n1,2\n", encoding="utf-8")

    with pytest.raises(DataError, match="no column `path`"):
        names("list.csv")


@pytest.mark.parametrize("path", ["empty", "*.jpg", "-"])
def test_nothing_to_predict_is_refused(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()

    with pytest.raises(DataError, match="no images to predict"):
        names(path)


def test_masks_of_defects_are_no_images_to_predict(tmp_path: Path) -> None:
    draw_tiles(tmp_path / "tile", good=1, test_good=1, defects=1)
    names = ("test/good/000", "test/hole/000", "test/scratch/000", "train/good/000")
    assert images_below(tmp_path) == (tmp_path, [f"tile/{name}.png" for name in names])


def test_shards_are_the_images_in_them(folder: Path) -> None:
    write_shard(folder, {"in/d.png": b"d", "class/e.png": b"e"})
    write_shard(folder, {"class/f.png": b"f", ".hidden/g.png": b"g"}, "shard-000001")
    (folder / "list.csv").write_text("path\nclass\\e.png\n", encoding="utf-8")

    inside = ["class/e.png", "class/f.png", "in/c.png", "in/d.png"]
    assert names(".") == ["a.png", "b.png", *inside, "list.csv"]
    assert names("in", "class") == ["in/c.png", "in/d.png", "class/e.png", "class/f.png"]
    assert names("shard-000000.tar") == ["class/e.png", "in/d.png"]
    assert [one.file for one in files_in(["in/d.png", "list.csv"], io.StringIO())] == [
        Path("in/d.png"),
        Path("class/e.png"),
    ]
    assert list(list_source(folder / "shard-000001.tar")["file"]) == [folder / "class/f.png"]
    assert list_source(folder / "list.csv")["name"].tolist() == ["class\\e.png"]
    assert files_of([folder / "class"]) == [folder / "class/e.png", folder / "class/f.png"]
