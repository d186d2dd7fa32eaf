"""The folders that this machine and the nodes of a cluster share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graft.flows.cluster.exchange import Place, open_place, place_of_exchange, place_of_remote
from graft.tasks.common.core.errors import ParamsError

CONFIG: dict[str, Any] = {
    "remote": {
        "store": {"url": "ssh://me:hidden@host/data", "password": "hidden", "port": 22, "keyfile": "/home/me/key"},
        "cloud": {"url": "s3://bucket/data", "access_key_id": "hidden", "secret_access_key": "hidden", "region": "eu"},
    }
}


def test_nodes_are_told_no_secret() -> None:
    store, cloud = place_of_remote(CONFIG, "store"), place_of_remote(CONFIG, "cloud")

    assert store.settings == {"url": "ssh://me@host/data", "port": 22, "keyfile": "/home/me/key"}
    assert cloud.settings == {"url": "s3://bucket/data", "region": "eu"}


def test_the_exchange_is_a_folder_of_the_remote_or_what_is_named() -> None:
    assert place_of_exchange(CONFIG, "store", None).below == "graft"
    assert place_of_exchange(CONFIG, "store", "remote://cloud/shared/jobs") == Place(
        "cloud", {"url": "s3://bucket/data", "region": "eu"}, "shared/jobs"
    )
    assert place_of_exchange(CONFIG, "store", "s3://other/jobs").settings == {"url": "s3://other/jobs"}
    with pytest.raises(ParamsError, match="remote://store/"):
        place_of_exchange(CONFIG, "store", "remote://stroe/jobs")
    with pytest.raises(ParamsError, match="must not have a password") as refused:
        place_of_exchange(CONFIG, "store", "ssh://me:hidden@host/jobs")
    assert "hidden" not in str(refused.value)


def test_a_file_is_whole_or_absent_and_found_by_its_name(tmp_path: Path) -> None:
    folder = open_place(Place("", {"url": str(tmp_path / "new")}, "below"))

    assert folder.get("a/one") is None
    assert folder.names() == []
    folder.put("a/one", b"first")
    folder.put("a/one", b"second")
    (tmp_path / "file").write_bytes(b"content")
    folder.put_file(tmp_path / "file", "two")
    assert folder.below("a").names() == ["one"]
    assert folder.names() == ["a", "two"]
    assert (folder.get("a/one"), folder.read("two", lambda file: file.read(3))) == (b"second", b"con")
    assert (folder.has("two"), folder.has("three")) == (True, False)
    folder.below("a").remove()
    folder.below("a").remove()
    assert folder.names() == ["two"]
