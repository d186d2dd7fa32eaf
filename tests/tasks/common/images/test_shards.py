import hashlib
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from sharded import write_index, write_shard

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.masks import read_mask
from graft.tasks.common.images.reading import Reading, content_of
from graft.tasks.common.images.shard_members import Shards
from graft.tasks.common.images.shards import hash_of, is_stored, opening, shards_of, stored

TWO = {"cat/1.png": b"one" * 400, "dog/2.png": b"two" * 99}


def md5(content):
    return hashlib.md5(content).hexdigest()


def content(path, image_id=None):
    with content_of(path, Limits(), image_id) as found:
        return found


def test_shards_mean_the_same_files_as_a_folder_without(tmp_path):
    tar = write_shard(tmp_path, TWO)
    write_shard(tmp_path, {"cat/ü 3.png": b"three", "cat/0.png": b""}, "shard-000001")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "4.png").write_bytes(b"four")

    shards = shards_of(tmp_path)
    assert shards.names() == ["cat/0.png", "cat/1.png", "cat/ü 3.png", "dog/2.png"]
    assert shards.hashes()["dog/2.png"] == md5(TWO["dog/2.png"])
    assert len(shards) == 4
    assert shards.files == {*(f"shard-00000{n}{end}" for n in (0, 1) for end in (".tar", ".index.parquet"))}
    assert stored(tmp_path / "cat" / "1.png").file == tar
    assert content(tmp_path / "cat" / "ü 3.png") == b"three"
    assert content(tmp_path / "cat" / "0.png") == b""
    assert content(tmp_path / "cat" / "4.png") == b"four"
    assert content(tmp_path / "dog" / ".." / "cat" / "1.png", md5(TWO["cat/1.png"])) == TWO["cat/1.png"]
    assert hash_of(tmp_path / "dog" / "2.png") == md5(TWO["dog/2.png"])
    assert hash_of(tmp_path / "cat" / "4.png") == md5(b"four")
    with opening(tmp_path / "cat" / "1.png") as (file, size):
        assert size == 1200
        assert file.read(10_000) == TWO["cat/1.png"]
        assert file.seek(-3, os.SEEK_END) == 1197
        assert file.read() == b"one"
    for name in ("cat/5.png", "cat", "dog", "cat/1.png/x", "shard-000000.tar/cat/1.png"):
        assert stored(tmp_path / name) is None
    assert not is_stored(tmp_path / "dog" / "1.png")
    assert is_stored(tmp_path / "dog" / "2.png")
    with pytest.raises(FileNotFoundError), content_of(tmp_path / "dog" / "1.png", Limits()):
        pass


def test_images_and_masks_are_decoded_from_shards_in_threads(tmp_path, photo):
    photo(20, 20).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    write_shard(tmp_path / "raw", {f"cat/{n}.png": whole for n in range(40)})

    def size(name):
        with Reading().file(tmp_path / "raw" / name, md5(whole)) as picture:
            return picture[0].size

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(size, shards_of(tmp_path / "raw").names())) == {(20, 20)}
    assert read_mask(tmp_path / "raw" / "cat" / "7.png").shape == (20, 20)
    with pytest.raises(DataError, match=r"cat/7\.png has changed since it was listed"):
        content(tmp_path / "raw" / "cat" / "7.png", md5(b""))


def test_a_folder_that_changes_is_read_again(tmp_path):
    assert shards_of(tmp_path) is None
    assert stored(tmp_path / "a") is None
    write_shard(tmp_path, {"a": b"1"})
    assert content(tmp_path / "a") == b"1"
    assert shards_of(tmp_path) is shards_of(tmp_path)
    write_shard(tmp_path, {"b": b"2"}, "shard-000001")
    assert content(tmp_path / "b") == b"2"
    write_shard(tmp_path, {"a": b"changed"})
    assert content(tmp_path / "a") == b"changed"


def rows(*more):
    return [("a", bytes(16), 512, 3), *more]


DAMAGED = {
    "outside": (rows(("b", bytes(16), 1536, 10**6)), r"b: 1,000,000 bytes at 1,536"),
    "negative size": (rows(("b", bytes(16), 1536, -1)), r"b: -1 bytes"),
    "negative offset": (rows(("b", bytes(16), -512, 3)), r"b: 3 bytes at -512"),
    "overflow": (rows(("b", bytes(16), 1536, 2**63 - 1)), r"b: 9,223,372,036,854,775,807 bytes"),
    "overlap": (rows(("b", bytes(16), 512, 3)), r"b: 3 bytes at 512"),
    "between blocks": (rows(("b", bytes(16), 1540, 3)), r"b: 3 bytes at 1,540"),
    "no header": ([("a", bytes(16), 0, 3)], r"a: 3 bytes at 0"),
    "above": (rows(("../b", bytes(16), 1536, 3)), r"'\.\./b'"),
    "absolute": (rows(("/b", bytes(16), 1536, 3)), r"'/b'"),
    "a dot": (rows(("x/./b", bytes(16), 1536, 3)), r"'x/\./b'"),
    "no name": (rows(("", bytes(16), 1536, 3)), r"''"),
    "a folder": (rows(("b/", bytes(16), 1536, 3)), r"'b/'"),
    "nul": (rows(("b\0", bytes(16), 1536, 3)), r"'b\\x00'"),
    "a long name": (rows(("b" * 5000, bytes(16), 1536, 3)), r"a name of 5,000 bytes"),
    "null": (rows(("b", None, 1536, 3)), r"rows without a value"),
    "twice": (rows(("a", bytes(16), 1536, 3)), r"1: a"),
    "too many": ([(f"{n}", bytes(16), 512, 0) for n in range(10_000)], r"10,000 rows for 10,240 bytes"),
    "wrong md5": (rows(("b", bytes(16), 1536, 3)), r"a: md5 9"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_an_index_that_is_wrong_is_one_clear_error(tmp_path, kind):
    wrong, named = DAMAGED[kind]
    tar = write_shard(tmp_path, {"a": b"abc", "b": b"def"})
    write_index(tar, wrong)
    with pytest.raises(DataError) as error:
        content(tmp_path / "a")
    assert error.match(named)
    assert error.match("do: ")
    assert error.match("images twice" if kind == "twice" else str(tmp_path / "shard-000000"))


def test_a_shard_that_is_damaged_is_one_clear_error(tmp_path):
    tar = write_shard(tmp_path, TWO)
    index = tmp_path / "shard-000000.index.parquet"
    whole, sound = tar.read_bytes(), index.read_bytes()

    def error_of(match):
        with pytest.raises(DataError, match=match):
            content(tmp_path / "cat" / "1.png")

    tar.write_bytes(whole[:1700])
    error_of(r"shard-000000\.index\.parquet is not the index of .*shard-000000\.tar, or one of both is damaged")
    tar.write_bytes(whole.replace(b"oneone", b"onetwo"))
    error_of(r"shard-000000\.tar is damaged(.|\n)*cat/1\.png: md5")
    for content_now in (b"", b"PAR1", sound[:-20], sound[:60] + bytes(9) + sound[69:], b"PAR1" + bytes(99) + b"PAR1"):
        index.write_bytes(content_now)
        error_of(r"shard-000000\.index\.parquet is not the index")
    write_index(tar, [("a", 1)], pa.schema([("name", pa.string()), ("rows", pa.int64())]))
    error_of(r"columns name .*, rows \(int64\)")
    tar.unlink()
    error_of(r"index\.parquet is half of a shard\n.*no shard-000000\.tar\n")
    index.rename(tmp_path / "gone")
    write_shard(tmp_path, {"x": b"1"}, "shard-000001")
    tar.write_bytes(whole)
    error_of(r"shard-000000\.tar is half of a shard\n.*no shard-000000\.index\.parquet\n")
    write_index(tar, [])
    assert len(shards_of(tmp_path)) == 1


def test_an_image_takes_about_sixty_bytes(tmp_path):
    from graft.tasks.common.images.shard_index import Index

    def index(count):
        import numpy as np

        names = pa.array([f"class_{n % 100:02}/{n:08}.jpg" for n in range(count)])
        at = np.arange(count, dtype=np.int64) * 1024 + 512
        return Index(names, np.zeros((count, 16), np.uint8), at, np.full(count, 5))

    def taken(count):
        parts = [index(count)]
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        shards = Shards(tmp_path, ["shard-000000.tar"], parts)
        peak = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
        tracemalloc.stop()
        assert shards.find("class_07/00000007.jpg").offset == 7 * 1024 + 512
        return peak

    assert (taken(40_000) - taken(20_000)) / 20_000 < 70
