"""The benchmark's photographs: the same for everyone who has the same originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.photos import make_photos, name_of


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "originals"
    folder.mkdir()
    for number, size in enumerate([(640, 480), (500, 600), (64, 64)]):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size).save(folder / f"{number}.jpg")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder


def read(folder: Path, count: int) -> list[bytes]:
    return [(folder / name_of(number)).read_bytes() for number in range(count)]


def test_the_same_originals_give_the_same_distinct_photographs(originals: Path, tmp_path: Path) -> None:
    make_photos(originals, tmp_path / "one", 6)
    make_photos(originals, tmp_path / "two", 6)

    assert read(tmp_path / "one", 6) == read(tmp_path / "two", 6)
    assert len(set(read(tmp_path / "one", 6))) == 6


def test_a_larger_set_begins_with_the_smaller_one(originals: Path, tmp_path: Path) -> None:
    make_photos(originals, tmp_path / "set", 2)
    small = read(tmp_path / "set", 2)
    make_photos(originals, tmp_path / "set", 4)

    assert read(tmp_path / "set", 4)[:2] == small


def test_a_photograph_is_about_512_by_384_in_one_of_two_classes(originals: Path, tmp_path: Path) -> None:
    make_photos(originals, tmp_path / "set", 4)

    assert sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir()) == ["first", "second"]
    for number in range(4):
        with Image.open(tmp_path / "set" / name_of(number)) as photo:
            assert 448 <= photo.width <= 576
            assert photo.height == round(photo.width * 3 / 4)


def test_a_folder_without_large_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no photograph of at least 384 x 288"):
        make_photos(tmp_path, tmp_path / "set", 1)
