"""Images that a node fetches by their hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.flows.cluster import exchange
from graft.flows.cluster.exchange import Folder, Place, open_place
from graft.flows.cluster.fetch import Fetcher, NodeCache, Wanted
from graft.tasks.common.core.errors import TransientError

CONTENTS = [f"image {number}".encode() for number in range(40)]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def put(store: Path, content: bytes) -> str:
    """As DVC does; returns the hash."""
    digest = md5(content)
    file = store / "files" / "md5" / digest[:2] / digest[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return digest


def whole(digest: str, content: bytes) -> Wanted:
    return Wanted(digest, len(content), digest)


@pytest.fixture
def remote(tmp_path: Path) -> Folder:
    (tmp_path / "store").mkdir()
    return open_place(Place("", {"url": str(tmp_path / "store")}))


@pytest.fixture
def bring(remote: Folder, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Into a new folder each time, with a cache that keeps so many bytes."""

    def run(wanted: list[Wanted], folder: str = "images", limit: int = 10**9) -> dict[str, str]:
        return Fetcher(remote, NodeCache(tmp_path / "cache", limit)).bring(wanted, tmp_path / folder)

    return run


def read(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_files_and_members_of_shards_are_fetched_and_checked(
    tmp_path: Path, bring: Callable[..., dict[str, str]]
) -> None:
    store = tmp_path / "store"
    files = [whole(put(store, content), content) for content in CONTENTS[:10]]
    shard = put(store, b"--".join(CONTENTS[10:]))
    offsets = [sum(len(content) + 2 for content in CONTENTS[10:end]) for end in range(10, 40)]
    members = [Wanted(md5(content), len(content), shard, offset) for content, offset in zip(CONTENTS[10:], offsets)]
    absent = Wanted("0" * 32, 8, "0" * 32)
    damaged = Wanted("1" * 32, 4, shard, 3)

    missing = bring([*members[::-1], absent, damaged, *files])

    assert read(tmp_path / "images") == {md5(content): content for content in CONTENTS}
    assert missing.keys() == {absent.md5, damaged.md5}
    assert "dvc push" in missing[absent.md5]
    assert "damaged in the DVC remote" in missing[damaged.md5]


def test_what_a_node_has_is_not_fetched_again_and_the_least_used_is_removed(
    tmp_path: Path, bring: Callable[..., dict[str, str]]
) -> None:
    wanted = [whole(put(tmp_path / "store", content), content) for content in CONTENTS[:4]]
    bring(wanted)
    for one in wanted:
        (tmp_path / "store" / "files" / "md5" / one.md5[:2] / one.md5[2:]).unlink()
        os.utime(tmp_path / "cache" / one.md5[:2] / one.md5[2:], (1, 1))

    damaged = wanted[3].md5
    (tmp_path / "cache" / damaged[:2] / damaged[2:]).unlink()
    (tmp_path / "cache" / damaged[:2] / damaged[2:]).write_bytes(b"else")

    assert bring(wanted[3:], "damaged").keys() == {damaged}
    assert bring(wanted[:1], "again", limit=8) == {}
    assert read(tmp_path / "again") == {wanted[0].md5: CONTENTS[0]}
    assert len(read(tmp_path / "images")) == 4, "what a block uses stays, whatever the cache removes"
    assert bring(wanted, "last").keys() == {one.md5 for one in wanted[1:]}


def test_a_remote_that_fails_now_and_then_is_asked_again(
    tmp_path: Path, remote: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "WAITS", (0.0, 0.0))
    wanted = [whole(put(tmp_path / "store", content), content) for content in CONTENTS]
    working, asked = remote.fs.open, []

    def failing(*words: str, often: int = 4) -> Any:
        asked.append(words)
        if len(asked) % often == 0:
            raise ConnectionResetError("the connection was reset")
        return working(*words)

    monkeypatch.setattr(remote.fs, "open", failing)
    assert Fetcher(remote, NodeCache(tmp_path / "cache", 10**9), threads=1).bring(wanted, tmp_path / "images") == {}
    assert len(asked) > len(wanted) == len(read(tmp_path / "images"))

    monkeypatch.setattr(remote.fs, "open", lambda *words: failing(*words, often=1))
    with pytest.raises(TransientError, match=r"does not answer[\s\S]*connection was reset"):
        Fetcher(remote, NodeCache(tmp_path / "other", 10**9)).bring(wanted, tmp_path / "more")
    assert not list((tmp_path / "other").rglob("*/*"))
