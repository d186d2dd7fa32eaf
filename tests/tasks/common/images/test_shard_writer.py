"""Shards are plain tar files with an index, the same bytes for the same images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from pyarrow import parquet

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images import shard_writer
from graft.tasks.common.images.shard_writer import Index, ShardWriter, needed, shard_name
from graft.tasks.common.images.shards import index_of, shards_of, stored

NAMES = ("cat/1.jpg", "cat/2.v1.jpg", "ökologie/größe.png", f"{'long/' * 60}name.png", "empty.png")


def members(each: int = 1000) -> dict[str, bytes]:
    found = {name: bytes([number]) * (each * number) for number, name in enumerate(NAMES, 1)}
    return found | {"empty.png": b""}


def beside(shard: Path) -> Path:
    return shard.with_name(index_of(shard.name))


def written(folder: Path, content: dict[str, bytes], size_mb: int = 1, first: int = 0) -> list[Path]:
    folder.mkdir()
    with ShardWriter(folder, size_mb, first) as writer:
        for name, data in content.items():
            assert writer.add(name, io.BytesIO(data + b"more"), len(data)) == hashlib.md5(data).hexdigest()
    return writer.shards


def test_a_shard_is_a_tar_file_whose_index_leads_to_its_members(tmp_path: Path) -> None:
    content = members()
    (shard,) = written(tmp_path / "one", content, first=7)
    again = written(tmp_path / "two", content, first=7)

    rows = parquet.read_table(beside(shard)).to_pylist()
    data = shard.read_bytes()
    with tarfile.open(shard) as archive:
        kept = {member.name: archive.extractfile(member).read() for member in archive}
        plain = {(member.type, member.mtime, member.uid, member.uname, member.mode) for member in archive}
    assert shard.name == "shard-000007.tar"
    assert kept == content
    assert plain == {(tarfile.REGTYPE, 0, 0, "", 0o644)}
    assert {row["name"]: data[row["offset"] : row["offset"] + row["size"]] for row in rows} == content
    assert [row["md5"] for row in rows] == [hashlib.md5(data).digest() for data in content.values()]
    assert len(data) % tarfile.RECORDSIZE == 0
    assert shards_of(shard.parent).hashes() == {name: hashlib.md5(each).hexdigest() for name, each in content.items()}
    assert stored(shard.parent / NAMES[2]).file == shard
    for file in (shard, beside(shard)):
        assert file.read_bytes() == (again[0].parent / file.name).read_bytes()


def test_the_quick_header_is_that_of_tarfile() -> None:
    for name, size in (("a.png", 0), ("x" * 100, 8**11 - 1), ("cat/0001.jpg", 2500)):
        assert shard_writer._header(name, size) == shard_writer._tar_header(name, size)


@pytest.mark.parametrize("most", [3, 20_000])
def test_a_shard_is_as_full_as_its_size_and_number_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(shard_writer, "MEMBERS", most)
    sizes = [300_000, 300_000, 300_000, 2_500_000, 0, 990_000, *[10] * 7, 488_448, 491_520 - 1024]
    content = {f"{number:02}.png": bytes(size) for number, size in enumerate(sizes)}

    shards = written(tmp_path / "many", content)

    rows = [parquet.read_table(beside(shard)) for shard in shards]
    assert [name for table in rows for name in table["name"].to_pylist()] == sorted(content)
    assert all(shard.stat().st_size <= 10**6 or len(table) == 1 for shard, table in zip(shards, rows, strict=True))
    assert max(map(len, rows)) <= most
    assert needed(((name, len(data)) for name, data in content.items()), 1) == len(shards)
    assert [shard.name for shard in shards] == [shard_name(number) for number in range(len(shards))]


def test_names_that_lead_elsewhere_and_files_that_shrink_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="became shorter"), ShardWriter(tmp_path) as writer:
        writer.add("a.png", io.BytesIO(b"12"), 3)
    for name in ("/a", "../a", "a/../b", "a//b", "", "a\0b", "\udcff.png", "a/./b", "x" * 256):
        with pytest.raises(DataError, match="cannot become a member"), ShardWriter(tmp_path, first=1) as writer:
            writer.add(name, io.BytesIO(b""), 0)
    assert [file.name for file in tmp_path.iterdir()] == [shard_name(0)], "half a shard has no index"


def test_an_index_alone_describes_another_shard(tmp_path: Path) -> None:
    index = Index()
    index.add("a.png", bytes(16), 512, 3)
    index.write(tmp_path / "train-0.tar")

    assert parquet.read_table(tmp_path / "train-0.index.parquet").to_pylist() == [
        {"name": "a.png", "md5": bytes(16), "offset": 512, "size": 3}
    ]
