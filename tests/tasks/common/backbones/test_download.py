import hashlib
import json
import random
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from graft.tasks.common.backbones import download as module
from graft.tasks.common.backbones.download import Remote, download
from graft.tasks.common.core.errors import WeightsError, WeightsUnreachable, may_pass

PATH = "/weights.h5"
CONTENT = random.Random(0).randbytes(3_400_000)
OTHER = random.Random(1).randbytes(3_400_000)


@pytest.fixture
def remote(server):
    server.files[PATH] = CONTENT
    server.etags[PATH] = '"one"'
    return Remote(
        url=server.address + PATH,
        what="weights of X",
        ways="put the file into data/weights",
        digest=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "models" / "weights.h5"


@pytest.fixture
def broken_off(server, remote, target):
    """A download that broke off after a million bytes; the server is well again."""
    server.breaks_after = 1_000_000
    with pytest.raises(WeightsUnreachable) as broken:
        download(remote, target)
    server.breaks_after = None
    return broken.value


def left_over(target):
    return sorted(file.name for file in target.parent.iterdir())


def test_a_file_is_fetched_whole(remote, target, server):
    assert download(remote, target)
    assert target.read_bytes() == CONTENT
    assert left_over(target) == ["weights.h5"]
    assert server.served == [(PATH, "", 200, len(CONTENT))]


def test_what_how_much_from_where_and_to_where_is_said_before(remote, target, capsys):
    download(remote, target)
    said = capsys.readouterr().err.splitlines()[0]
    assert said == f"fetching weights of X: 3.4 MB, from {remote.url} to {target}"


def test_progress_is_shown_in_megabytes_for_a_program_to_read(remote, target, capsys, monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setenv("GRAFT_PROGRESS", "json")
    monkeypatch.setattr("graft.tasks.common.core.progress.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    download(remote, target)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("::progress ")]
    shown = [json.loads(line.removeprefix("::progress ")) for line in lines]
    assert {state["what"] for state in shown} == {"fetching weights of X"}
    assert (shown[0]["total"], shown[-1]["done"]) == (4, 4)
    assert [state["done"] for state in shown] == sorted(state["done"] for state in shown)


def test_a_file_that_another_process_has_fetched_meanwhile_is_left_as_it_is(remote, target, server):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"theirs")
    assert not download(remote, target)
    assert target.read_bytes() == b"theirs"
    assert (left_over(target), server.served) == (["weights.h5"], [])


def test_two_at_once_fetch_it_once(remote, target, server):
    done = []
    threads = [threading.Thread(target=lambda: done.append(download(remote, target))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, True]
    assert [sent for _, _, _, sent in server.served] == [len(CONTENT)]
    assert (target.read_bytes(), left_over(target)) == (CONTENT, ["weights.h5"])


def test_what_came_before_the_connection_broke_is_kept_and_the_error_says_so(broken_off, target):
    assert not target.exists()
    kept = (target.parent / "weights.h5.part").read_bytes()
    assert 0 < len(kept) <= 1_000_000
    assert kept == CONTENT[: len(kept)]
    assert "run again: it goes on" in broken_off.todo
    assert "put the file into data/weights" in broken_off.todo


def test_a_broken_connection_may_be_tried_again(broken_off):
    assert may_pass(broken_off)


def test_the_next_try_fetches_the_rest_only(broken_off, remote, target, server, capsys):
    kept = (target.parent / "weights.h5.part").stat().st_size
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert server.served[1:] == [(PATH, f"bytes={kept}-", 206, len(CONTENT) - kept)]
    assert "going on after" in capsys.readouterr().err
    assert left_over(target) == ["weights.h5"]


def test_a_server_that_sends_no_rest_is_asked_for_all(broken_off, remote, target, server):
    server.ranges = False
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert [(status, sent) for _, _, status, sent in server.served[1:]] == [(200, len(CONTENT))]


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range heeded", "If-Range unheeded"])
@pytest.mark.parametrize("size", [3_400_000, 3_400_001, 500_000])
def test_the_beginning_of_one_file_is_never_joined_to_the_end_of_another(
    broken_off, remote, target, server, heeds, size
):
    content = (OTHER + b"!")[:size]
    server.files[PATH], server.etags[PATH], server.heeds_if_range = content, '"two"', heeds
    changed = Remote(**{**vars(remote), "digest": hashlib.sha256(content).hexdigest()})
    if not heeds and size == len(CONTENT):  # only the hash can tell
        with pytest.raises(WeightsError, match="not the expected file"):
            download(changed, target)
    download(changed, target)
    assert target.read_bytes() == content


def test_what_cannot_be_told_from_another_file_is_not_gone_on_with(remote, target, server):
    nameless = Remote(**{**vars(remote), "digest": ""})
    server.etags.clear()
    server.breaks_after = 1_000_000
    with pytest.raises(WeightsUnreachable) as broken:
        download(nameless, target)
    assert "goes on" not in broken.value.todo
    server.files[PATH], server.breaks_after = OTHER, None
    download(nameless, target)
    assert target.read_bytes() == OTHER
    assert server.served[-1][1:] == ("", 200, len(OTHER))


def test_a_part_of_another_address_is_not_gone_on_with(broken_off, remote, target, server):
    server.files["/moved.h5"], server.etags["/moved.h5"] = CONTENT, '"one"'
    download(Remote(**{**vars(remote), "url": f"{server.address}/moved.h5"}), target)
    assert server.served[-1] == ("/moved.h5", "", 200, len(CONTENT))


def test_a_part_that_was_whole_when_the_process_was_killed_is_not_fetched_again(broken_off, remote, target, server):
    (target.parent / "weights.h5.part").write_bytes(CONTENT)
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert len(server.served) == 1


def test_a_file_with_another_hash_is_refused_with_both_hashes_and_removed(remote, target, server):
    server.files[PATH] = OTHER
    with pytest.raises(WeightsError, match="not the expected file") as refused:
        download(remote, target)
    assert remote.digest in refused.value.allowed
    assert hashlib.sha256(OTHER).hexdigest() in refused.value.got
    assert left_over(target) == []


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_beginning_of_a_hash_will_do(remote, target, algorithm):
    digest = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    download(Remote(**{**vars(remote), "algorithm": algorithm, "digest": digest}), target)
    assert target.read_bytes() == CONTENT


def test_too_little_room_is_said_before_anything_is_fetched(remote, target, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000))
    with pytest.raises(WeightsError, match="no room") as refused:
        download(remote, target)
    assert str(target.parent) in refused.value.what
    assert (refused.value.got, refused.value.allowed) == ("1.2 MB free", "3.4 MB, the size of weights.h5")
    assert "put the file into data/weights" in refused.value.todo
    assert not may_pass(refused.value)
    assert left_over(target) == []


def test_the_rest_of_a_file_needs_room_for_the_rest_only(broken_off, remote, target, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    download(remote, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_before_the_end_is_an_error_for_the_user(remote, target):
    target.parent.mkdir(parents=True)
    (target.parent / "weights.h5.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="cannot be written") as refused:
        download(remote, target)
    assert refused.value.got == "No space left on device"
    assert str(target.parent) in refused.value.what
    assert not may_pass(refused.value)
    assert not target.exists()


def test_a_folder_that_cannot_be_made_is_an_error_for_the_user(remote, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        download(remote, tmp_path / "file" / "weights.h5")


def test_a_server_that_is_not_there_may_be_tried_again_and_leaves_nothing(remote, target):
    nowhere = Remote(**{**vars(remote), "url": "http://127.0.0.1:9/weights.h5"})
    with pytest.raises(WeightsUnreachable, match=r"http://127\.0\.0\.1:9") as refused:
        download(nowhere, target)
    assert may_pass(refused.value)
    assert refused.value.todo == "put the file into data/weights"
    assert left_over(target) == []


@pytest.mark.parametrize(("status", "again"), [(404, False), (403, False), (500, True), (503, True)])
def test_a_refusal_is_an_answer_and_a_servers_breakdown_may_pass(remote, target, server, status, again):
    server.status = status
    with pytest.raises(WeightsError, match="could not be fetched") as refused:
        download(remote, target)
    assert str(status) in refused.value.got
    assert may_pass(refused.value) == again
    assert left_over(target) == []


def test_an_interruption_by_the_user_keeps_what_has_come(remote, target, monkeypatch):
    blocks = iter(range(5))

    def interrupt(_bar, _count):
        if next(blocks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("graft.tasks.common.core.progress.Progress.add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(remote, target)
    assert 0 < (target.parent / "weights.h5.part").stat().st_size < len(CONTENT)
