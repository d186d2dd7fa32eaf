import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft.tasks.common.core.files import (
    md5,
    read_json,
    sha256,
    shared_folder,
    whole_file,
    whole_folder,
    write_json,
    write_shared,
)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def journal(monkeypatch):
    """The flushes and renames in their order, as (what, name of the file or folder, its bytes)."""
    steps, fsync, replace, rename = [], os.fsync, os.replace, os.rename

    def flushed(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        steps.append(("flush", path.name, path.read_bytes() if path.is_file() else None))
        fsync(handle)

    def moved(call):
        def move(source, target):
            call(source, target)
            steps.append(("rename", Path(target).name, None))

        return move

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    return steps


def write_half(path):
    path.write_text("half")
    raise RuntimeError


def test_a_file_appears_when_the_block_ends_well(tmp_path):
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_file_stays_as_it_was_when_the_block_fails(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.txt") as part:
        write_half(part)
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_files_missing_parents_are_made(tmp_path):
    with whole_file(tmp_path / "x" / "y" / "a.txt") as part:
        part.write_text("whole")
    assert (tmp_path / "x" / "y" / "a.txt").is_file()


def test_a_folder_replaces_the_earlier_one_with_all_that_was_in_it(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with whole_folder(tmp_path / "out") as part:
        (part / "new").touch()
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["new"]


def test_a_folder_stays_as_it_was_when_the_block_fails(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as part:
        write_half(part / "new")
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["old"]


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path, dead_pid):
    (tmp_path / f".out.{dead_pid}.part").mkdir()
    with whole_folder(tmp_path / "out"):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_a_killed_process_had_set_aside_is_put_back(tmp_path, dead_pid):
    old = tmp_path / f".out.{dead_pid}.old.part"
    old.mkdir()
    (old / "kept").touch()
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        raise RuntimeError
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["kept"]


def test_a_folder_set_aside_is_removed_once_its_successor_is_there(tmp_path, dead_pid):
    (tmp_path / f".out.{dead_pid}.old.part").mkdir()
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out"):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path, dead_pid):
    (tmp_path / f".a.txt.{dead_pid}.part").touch()
    (tmp_path / f".a.txt.b.{dead_pid}.part").touch()
    with whole_file(tmp_path / "a.txt") as part:
        part.touch()
    assert sorted(f.name for f in tmp_path.iterdir()) == [f".a.txt.b.{dead_pid}.part", "a.txt"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    other = tmp_path / f".out.{os.getppid()}.part"
    other.mkdir()
    with whole_folder(tmp_path / "out"):
        pass
    assert other.is_dir()


def test_what_a_killed_process_of_the_same_number_left_of_a_folder_is_removed(tmp_path):
    """In a container the process numbers start at 1 again, so that a killed stage and its successor may share one."""
    stale = tmp_path / f".out.{os.getpid()}.part"
    stale.mkdir()
    (stale / "half").touch()
    with whole_folder(tmp_path / "out") as part:
        (part / "new").touch()
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["new"]


def test_json_keeps_the_order_of_its_keys_and_letters_beyond_ascii(tmp_path):
    write_json(tmp_path / "a.json", {"z": 1, "a": "Käse"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "z": 1,\n  "a": "Käse"\n}\n'


def test_json_that_was_written_reads_the_same(tmp_path):
    content = {"a": [1, 2.5, None], "b": {"c": True}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_the_hashes_are_those_of_the_standard(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert md5(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_shared_file_is_whole_and_leaves_nothing_beside_it(tmp_path):
    write_shared(tmp_path / "folder" / "a", b"content")
    assert (tmp_path / "folder" / "a").read_bytes() == b"content"
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a"]


def test_of_two_who_make_the_same_shared_folder_the_first_stays(tmp_path):
    with shared_folder(tmp_path / "a") as first, shared_folder(tmp_path / "a") as second:
        (first / "x").write_text("first")
        (second / "x").write_text("second")
    assert (tmp_path / "a" / "x").read_text() == "second"  # the inner block ended first
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_shared_folder_whose_block_fails_is_not_there(tmp_path):
    with pytest.raises(RuntimeError), shared_folder(tmp_path / "a") as part:
        write_half(part / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_writing_is_left_alone_until_it_is_old(tmp_path):
    young, old = tmp_path / ".1.shared", tmp_path / ".2.shared"
    young.touch()
    old.touch()
    os.utime(old, (1, 1))
    write_shared(tmp_path / "a", b"content")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".1.shared", "a"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, journal, shared):
    target = tmp_path / "folder" / "a"
    if shared:
        write_shared(target, b"content")
    else:
        with whole_file(target) as part:
            part.write_bytes(b"content")
    (first, _, content), (second, name, _), (third, folder, _) = journal
    assert (first, content) == ("flush", b"content")
    assert (second, name) == ("rename", "a")
    assert (third, folder) == ("flush", "folder")


@pytest.mark.parametrize("make", [whole_folder, shared_folder])
def test_all_of_a_folder_is_flushed_before_it_is_renamed_and_its_parent_after(tmp_path, journal, make):
    with make(tmp_path / "parent" / "a") as part:
        (part / "below").mkdir()
        (part / "below" / "x").write_bytes(b"x")
        (part / "y").write_bytes(b"y")
        (part / "link").symlink_to("nowhere")
        before = part.name
    renamed = [what for what, _, _ in journal].index("rename")
    assert {name: content for _, name, content in journal[:renamed]} == {
        "x": b"x", "below": None, "y": b"y", before: None
    }  # fmt: skip
    assert journal[renamed - 1][1] == before  # the folder itself after all that it names
    assert journal[renamed:] == [("rename", "a", None), ("flush", "parent", None)]


def test_a_folder_of_many_files_is_flushed_at_once(tmp_path, journal, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(len(journal)))
    with whole_folder(tmp_path / "a") as part:
        for n in range(100):
            (part / str(n)).touch()
    assert synced == [0]
    assert journal == [("rename", "a", None), ("flush", tmp_path.name, None)]


def test_a_file_system_that_cannot_flush_a_folder_is_no_error(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_json(tmp_path / "a.json", 1)
    assert read_json(tmp_path / "a.json") == 1


def test_a_disk_that_fails_to_flush_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def fail(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_json(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
