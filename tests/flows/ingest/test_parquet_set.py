"""Hugging Face's Parquet files: image bytes become members of shards, unchanged; rows without an image are named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from projects import Project, draw
from pyarrow import parquet

from graft.flows.ingest import parquet_set
from graft.flows.ingest.importing import import_images, preview_images
from graft.flows.ingest.plan import plan_import
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.shards import shards_of
from graft.tasks.preprocess.scan import scan

CLASSES = ["red", "green", "blue"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int, folder: Path) -> bytes:
    draw(folder / "one.png", number % 3, number)
    return (folder / "one.png").read_bytes()


def write(file: Path, images: list[Any], labels: list[Any], label: str = "label", feature: Any = "classes") -> Path:
    """As `datasets` writes it."""
    named = {"names": CLASSES, "_type": "ClassLabel"} if feature == "classes" else feature
    features = {"image": {"_type": "Image"}, label: named}
    table = pa.table({"image": pa.array(images, IMAGE), label: labels})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(meta), file, row_group_size=4)
    return file


def test_images_become_members_of_shards_and_labels_the_table(
    empty_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes do not change; rows without an image or a label are left out by name; the same set can be added again."""
    monkeypatch.setattr(parquet_set, "BATCH", 3000)
    root, raw = empty_project.root, empty_project.root / "data" / "raw"
    data = [picture(n, tmp_path) for n in range(12)]
    cells: list[Any] = [{"bytes": each, "path": f"a/{n}.png" if n % 2 else None} for n, each in enumerate(data)]
    odd = [None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": data[0], "path": "../../x.sh"}]
    source = tmp_path / "set"
    write(source / "data" / "train-00000-of-00002.parquet", cells[:6], [n % 3 for n in range(6)])
    write(source / "data" / "train-00001-of-00002.parquet", odd, [0, 1, -1])
    write(source / "data" / "validation-00000-of-00001.parquet", cells[6:], [n % 3 for n in range(6)])
    (source / "README.md").write_text("x", encoding="utf-8")

    assert preview_images(source, root)["shards"] == 1
    told = import_images(source, root)

    stems = ["train-00000-of-00002"] * 6 + ["validation-00000-of-00001"] * 6
    names = [f"images/{stem}/{n % 6:07}.png" for n, stem in enumerate(stems)]
    assert shards_of(raw).hashes() == {
        name: hashlib.md5(each).hexdigest() for name, each in zip(names, data, strict=True)
    }
    found = scan(raw).set_index("path").loc[names]
    assert list(found["label"]) == [CLASSES[n % 3] for n in range(12)]
    assert list(found["split"]) == ["train"] * 6 + ["test"] * 6
    assert told["files"] == 12
    assert {why: left["such_as"] for why, left in told["left_out"].items()} == {
        "a row without an image": ["images/train-00001-of-00002/0000000"],
        "a row whose image is in another file": ["images/train-00001-of-00002/0000001"],
        "a row without a label": ["images/train-00001-of-00002/0000002"],
    }

    before = sorted(file.name for file in raw.iterdir())
    assert import_images(source, root, "add")["shards"] == 1
    assert sorted(file.name for file in raw.iterdir()) == before
    write(source / "data" / "train-00000-of-00002.parquet", cells[6:], [n % 3 for n in range(6)])
    with pytest.raises(DataError, match="another image of this name"):
        import_images(source, root, "add")


def test_labels_without_classes_are_read_as_they_are(tmp_path: Path) -> None:
    image = {"bytes": b"\xff\xd8\xff1", "path": None}
    file = write(tmp_path / "all.parquet", [image] * 4, ["a", "b"] * 2, "category", {"dtype": "string"})
    several = {"feature": {"names": CLASSES, "_type": "ClassLabel"}, "_type": "Sequence"}
    tags = write(tmp_path / "tags.parquet", [image] * 3, [[0, 2], [], [1]], "tags", several)

    plan = plan_import(file)
    assert list(plan.rows["label"]) == ["a", "b"] * 2
    assert list(plan.files) == [f"images/all/{n:07}.jpg" for n in range(4)]
    assert plan.rows["split"].isna().all()
    assert list(plan_import(tags, "multilabel").rows["label"]) == ["blue|red", "", "green"]


def test_what_cannot_be_read_is_one_clear_error(
    empty_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = empty_project.root
    gone = {"bytes": None, "path": "/etc/passwd"}
    write(tmp_path / "gone" / "x.parquet", [gone] * 6, [0, 1, 2] * 2)
    with pytest.raises(DataError, match=r"no images in its Parquet files[\s\S]*6 rows: a row whose image"):
        import_images(tmp_path / "gone", root)
    assert not (root / "data" / "raw").exists()

    image = {"bytes": b"1", "path": None}
    file = write(tmp_path / "set" / "a.parquet", [image] * 6, [0, 1, 2] * 2)
    write(tmp_path / "set" / "b.parquet", [image] * 6, ["a"] * 6, feature={"dtype": "string"})
    with pytest.raises(DataError, match="different columns or classes"):
        plan_import(tmp_path / "set")
    write(tmp_path / "none.parquet", [image], [0], "number", {"dtype": "int64"})
    with pytest.raises(DataError, match=r"no column of labels[\s\S]*image, number"):
        plan_import(tmp_path / "none.parquet")
    with monkeypatch.context() as patched, pytest.raises(DataError, match="too large to read"):
        patched.setattr(parquet_set, "LARGEST_GROUP", 10)
        plan_import(file)

    data = bytearray(file.read_bytes())
    data[4:300] = bytes(296)
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet"):
        import_images(file, root)
    assert not (root / "data" / "raw").exists()
