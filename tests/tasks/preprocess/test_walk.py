"""The listing of a folder: what is taken, what is named, and that nothing is followed or waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.walk import BROKEN, OUTSIDE, copy_regular, list_files, open_regular, walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files in two folders."""
    for name in ("red/1.png", "green/2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text(name, encoding="utf-8")
    return tmp_path / "images"


BOTH = ["green/2.png", "red/1.png"]


@pytest.mark.parametrize("outside", [False, True])
def test_links_in_a_circle_end_and_each_file_is_listed_once(folder: Path, outside: bool) -> None:
    for name in ("a", "b"):
        (folder / name).symlink_to(".")
    (folder / "red" / "up").symlink_to("..")
    (folder / "green" / "across").symlink_to("../red")

    listing = walk(folder, outside=outside)

    assert list(listing.files) == BOTH
    assert listing.repeated == ["a", "b", "green/across", "red/up"]
    assert listing.left_out == {}


def test_a_link_to_a_file_of_the_folder_counts_once_and_the_files_own_name_stays(folder: Path) -> None:
    (folder / "blue").mkdir()
    (folder / "blue" / "1.png").symlink_to("../red/1.png")

    assert list(walk(folder).files) == BOTH
    assert walk(folder).repeated == ["blue/1.png"]
    assert list(walk(folder, outside=True).files) == ["blue/1.png", *BOTH], "DVC's cache may hold one file for two"


def test_a_link_into_a_hidden_folder_is_taken_under_its_own_name(folder: Path) -> None:
    (folder / ".store").mkdir()
    (folder / ".store" / "3").write_text("3", encoding="utf-8")
    (folder / "red" / "3.png").symlink_to("../.store/3")

    listing = walk(folder)

    assert list(listing.files) == [*BOTH, "red/3.png"]
    assert listing.files["red/3.png"] == folder.resolve() / ".store" / "3"


@pytest.mark.parametrize("target", ["/etc", "/etc/hostname", "../../secret"])
def test_a_link_that_leads_out_is_named_and_not_followed(folder: Path, target: str) -> None:
    (folder.parent / "secret").write_text("secret", encoding="utf-8")
    (folder / "red" / "link").symlink_to(target)

    listing = walk(folder)

    assert list(listing.files) == BOTH
    assert listing.left_out == {"red/link": OUTSIDE}


def test_a_link_that_leads_out_is_followed_where_that_is_allowed(folder: Path) -> None:
    (folder.parent / "more").mkdir()
    (folder.parent / "more" / "3.png").write_text("3", encoding="utf-8")
    (folder / "blue").symlink_to("../more")

    assert list(walk(folder, outside=True).files) == ["blue/3.png", *BOTH]


def test_a_folder_that_is_a_link_itself_is_listed(folder: Path) -> None:
    (folder.parent / "link").symlink_to("images")
    assert list(walk(folder.parent / "link").files) == BOTH


@pytest.mark.parametrize("outside", [False, True])
def test_what_is_not_a_regular_file_is_named(folder: Path, outside: bool) -> None:
    os.mkfifo(folder / "red" / "fifo")
    (folder / "red" / "to a fifo").symlink_to("fifo")
    (folder / "red" / "broken").symlink_to("nowhere")
    (folder / "red" / "self").symlink_to("self")
    with socket.socket(socket.AF_UNIX) as listening, _inside(folder):
        listening.bind("socket")

    listing = walk(folder, outside=outside)

    assert list(listing.files) == BOTH
    assert listing.left_out == {
        "red/broken": BROKEN,
        "red/fifo": "a FIFO, a socket or a device",
        "red/self": BROKEN,
        "red/to a fifo": "a link to a FIFO, a socket or a device",
        "socket": "a FIFO, a socket or a device",
    }


class _inside:  # noqa: N801  (a path of a socket may have 107 letters, those of tests have more)
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = Path.cwd()
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


def test_a_name_that_is_not_utf8_is_named_with_escapes(folder: Path) -> None:
    (folder / "red" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (folder / os.fsdecode(b"gr\xfcn")).mkdir()

    listing = walk(folder)

    assert list(listing.files) == BOTH
    assert listing.left_out == {"red/caf\\xe9.png": "its name is not UTF-8", "gr\\xfcn": "its name is not UTF-8"}


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes os.scandir refuse folders called `locked`: permissions do not stop root, as whom tests may run."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return Path("locked")


def test_a_folder_that_cannot_be_read_is_named(folder: Path, unreadable: Path) -> None:
    (folder / unreadable).mkdir()
    (folder / unreadable / "3.png").touch()

    assert walk(folder).left_out == {"locked": "the folder cannot be read: Permission denied"}
    with pytest.raises(DataError, match=r"locked \(the folder cannot be read: Permission denied\)"):
        list_files(folder)


def test_the_folder_itself_that_cannot_be_read_is_an_error(folder: Path, unreadable: Path) -> None:
    (folder / unreadable).mkdir()
    with pytest.raises(DataError, match=r"the folder itself \(the folder cannot be read"):
        list_files(folder / unreadable)


def test_what_cannot_be_listed_among_hidden_names_is_left_alone(folder: Path) -> None:
    os.mkfifo(folder / ".lock")
    assert list_files(folder) == BOTH


def test_a_broken_link_among_trusted_images_stands_for_one_that_is_rejected_when_it_is_read(folder: Path) -> None:
    (folder / "red" / "gone.png").symlink_to("nowhere")
    assert list_files(folder) == [*BOTH, "red/gone.png"]


def test_a_folder_that_does_not_exist_has_no_files(tmp_path: Path) -> None:
    assert list_files(tmp_path / "nowhere") == []


def test_a_file_that_has_become_a_link_or_a_fifo_since_it_was_listed_is_not_read(folder: Path) -> None:
    file = walk(folder).files["red/1.png"]
    assert open_regular(file, folder).read() == b"red/1.png"

    (folder / "red").rename(folder / "other")
    (folder / "red").symlink_to("/etc")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        open_regular(file, folder)

    (folder / "red").unlink()
    (folder / "red").mkdir()
    file.symlink_to("../green/2.png")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(file, folder)

    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(file, folder)
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        copy_regular(file, folder, folder / "copy")
    assert not (folder / "copy").exists()
