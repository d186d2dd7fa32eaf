"""DVC's listings of a folder with shards: they name the images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import Project, draw_classes
from sharded import shard_files, write_shard

from graft.flows.maintenance.doctor import Finding, _images, _safely
from graft.flows.versioning import stale
from graft.flows.versioning.dvc import images_of, raw_files, raw_hash, raw_hashes, raw_listing
from graft.flows.versioning.losses import require_no_loss
from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.walk import list_files


@pytest.fixture
def sharded(empty_project: Project) -> Path:
    """A project of six images, four of them in two shards."""
    raw = draw_classes(empty_project.root / "data" / "raw", each=2)
    names = list_files(raw)
    shard_files(raw, names[:2])
    shard_files(raw, names[2:4], "shard-000001")
    empty_project.dvc("add", "--quiet", "data/raw")
    return empty_project.root


def object_of(root: Path, name: str) -> Path:
    digest = raw_files(root)[name]
    return root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def test_a_listing_names_the_images_also_where_they_are_not_checked_out(sharded: Path) -> None:
    raw = sharded / "data" / "raw"
    names = list_files(raw)
    hashes = raw_hashes(sharded)
    assert sorted(hashes) == names
    assert len(raw_files(sharded)) == 2 + 4
    assert raw_listing(sharded) == hashes

    shutil.rmtree(raw)
    assert raw_listing(sharded) == hashes
    object_of(sharded, "shard-000001.index.parquet").unlink()
    assert images_of(sharded, raw_hash(sharded)) is None


def test_a_loss_names_the_images_of_the_shard(sharded: Path) -> None:
    raw = sharded / "data" / "raw"
    names, content = list_files(raw), (raw / "shard-000001.tar").read_bytes()
    require_no_loss(sharded)
    (raw / "shard-000001.tar").unlink()
    require_no_loss(sharded)  # DVC's cache has it
    object_of(sharded, "shard-000001.tar").unlink()
    with pytest.raises(DataError, match=rf"2 images are neither[\s\S]*{names[2]}, {names[3]}\n"):
        require_no_loss(sharded)
    (raw / "shard-000001.tar").write_bytes(content)
    for file in list(raw.iterdir()):
        if file.name.startswith("shard-000001"):
            file.rename(file.with_name(file.name.replace("1", "9")))
    require_no_loss(sharded)  # the same images in another shard


def test_a_change_of_a_shard_is_noticed(sharded: Path) -> None:
    raw = sharded / "data" / "raw"
    shard = raw / "shard-000000.tar"
    found = _safely(_images, sharded)
    assert found == Finding("images", "ok", f"{raw_hash(sharded)}, 4 images in 2 shards")
    with pytest.raises(DataError, match=r"1 files: shard-000000\.tar"), stale.unchanged(raw):
        shard.write_bytes(shard.read_bytes().replace(b"IHDR", b"IHRD", 1))
    with pytest.raises(DataError, match=r"0 files added, 0 missing, 1 changed: shard-000000\.tar"):
        raw_hashes(sharded)
    assert "shard-000000.tar is damaged" in _safely(_images, sharded).found
    write_shard(raw, {"blue/9.png": b"9"}, "shard-000002")
    (raw / "shard-000002.tar").unlink()
    assert "shard-000002.index.parquet is half of a shard" in _safely(_images, sharded).found
