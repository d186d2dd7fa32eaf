"""Images in shards: imported, converted, added to, merged."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pytest
from projects import Project, draw, draw_classes, draw_squares

from graft.flows.ingest import converting, sharding
from graft.flows.ingest.converting import shard_images, unshard_images
from graft.flows.ingest.importing import import_images, preview_images
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.images.shards import shards_of
from graft.tasks.preprocess.scan import scan


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def digests(content: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(data).hexdigest() for name, data in content.items()}


def test_shards_hold_what_an_import_of_files_would_copy(empty_project: Project, classes: Path) -> None:
    raw = empty_project.root / "data" / "raw"
    (classes / "red" / "notes.txt").write_text("x", encoding="utf-8")
    plain = import_images(classes, empty_project.root)
    wanted = files(raw)

    previewed = preview_images(classes, empty_project.root, "replace", shards=1)
    told = import_images(classes, empty_project.root, "replace", shards=1)

    assert {**told, "dvc": ""} == {**plain, "shards": 1, "dvc": ""} == {**previewed, "dvc": ""}
    assert sorted(files(raw)) == ["shard-000000.index.parquet", "shard-000000.tar"]
    assert shards_of(raw).hashes() == digests(wanted)
    assert list(scan(raw)["path"]) == sorted(wanted)


def test_sharding_and_unsharding_undo_each_other(empty_project: Project, tmp_path: Path) -> None:
    """Also for masks and a table, with what a system left behind; and the second call has nothing to do."""
    root, raw = empty_project.root, empty_project.root / "data" / "raw"
    empty_project.set("head", task="anomaly")
    import_images(draw_squares(tmp_path / "squares", 12) / "labels.csv", root)
    (raw / ".DS_Store").write_bytes(b"x")
    before, seen = files(raw), scan(raw, "anomaly")

    told = shard_images(root, 1)
    packed = files(raw)
    again = shard_images(root, 1)
    images = {name: data for name, data in before.items() if name.endswith(".png")}
    assert told == again
    assert (told["images"], told["shards"], told["files"]) == (len(images), 1, 2)
    assert packed == files(raw)
    assert sorted(packed) == [".DS_Store", "labels.csv", "shard-000000.index.parquet", "shard-000000.tar"]
    assert shards_of(raw).hashes() == digests(images)
    pd.testing.assert_frame_equal(scan(raw, "anomaly"), seen)

    unshard_images(root)
    assert files(raw) == before
    assert unshard_images(root)["shards"] == 0
    shard_images(root, 1)
    assert files(raw) == packed


def test_a_conversion_that_fails_changes_nothing(
    empty_project: Project, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, raw = empty_project.root, empty_project.root / "data" / "raw"
    with pytest.raises(DataError, match="holds no images"):
        shard_images(root)
    import_images(classes, root)
    before = files(root / "data")

    with monkeypatch.context() as patched, pytest.raises(DataError, match=r"do not hold what was read[\s\S]*1 images"):
        patched.setattr(
            converting, "write_shards", lambda *given: {**sharding.write_shards(*given), "red/000.png": "0"}
        )
        shard_images(root)
    with monkeypatch.context() as patched, pytest.raises(GraftError, match="no room"):
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
        shard_images(root)
    assert files(root / "data") == before

    shard_images(root)
    shard = raw / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    before = files(root / "data")
    with pytest.raises(DataError, match=r"shard-000000\.tar is damaged"):
        unshard_images(root)
    assert files(root / "data") == before


def test_new_images_go_into_new_shards_until_small_ones_are_merged(
    empty_project: Project,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sharding, "MANY_SMALL", 2)
    root, raw = empty_project.root, empty_project.root / "data" / "raw"
    import_images(classes, root, shards=1)
    first = files(raw)

    draw(classes / "red" / "new.png", 0, 50)
    assert preview_images(classes, root, "add")["shards"] == 1
    assert import_images(classes, root, "add")["shards"] == 2
    assert first.items() <= files(raw).items(), "shards that are there are not touched"
    assert [name for name, _ in sharding.members_of(raw / "shard-000001.tar")] == ["red/new.png"]

    draw(classes / "red" / "000.png", 1, 51)
    with pytest.raises(DataError, match="another image of this name"):
        import_images(classes, root, "add")
    draw(classes / "red" / "000.png", 0, 0)
    draw(classes / "green" / "newer.png", 0, 52)
    assert import_images(classes, root, "add")["shards"] == 1
    assert "3 small shards are now shard-000003.tar" in capsys.readouterr().err
    assert shards_of(raw).hashes() == digests(
        {str(f.relative_to(classes)): f.read_bytes() for f in classes.rglob("*.png")}
    )

    told = import_images(draw_classes(tmp_path / "others", each=3), root, "replace")
    assert told["notes"] == ["data/raw was in shards, and is again"]
    assert sorted(files(raw)) == ["shard-000000.index.parquet", "shard-000000.tar"]
    assert sharding.shard_size(raw / "shard-000000.tar") == 1, "the size stays"
    with pytest.raises(DataError, match="`--link` keeps files"):
        import_images(classes, root, "replace", link=True)
