"""Archives that nobody has checked: what is taken out of them, and that nothing else happens."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from graft.flows.ingest import archives, tar_members
from graft.flows.ingest.archives import unpack
from graft.tasks.common.core.errors import DataError

MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def zipped(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def tarred(file: Path, members: dict[str, bytes], mode: str = "w", **attributes: object) -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


PICTURES = {"pets/cat/1.png": b"cat", "./pets/dog/2.png": b"dog", "__MACOSX/pets/cat/._1.png": b"x"}


@pytest.mark.parametrize("suffix", [".zip", *MODES])
def test_files_are_taken_out_and_those_of_systems_are_left(tmp_path: Path, folder: Path, suffix: str) -> None:
    file = tmp_path / f"pets{suffix}"
    zipped(file, PICTURES) if suffix == ".zip" else tarred(file, PICTURES, MODES[suffix])

    assert unpack(file, folder) == ["__MACOSX/pets/cat/._1.png"]
    assert contents(folder) == {"pets/cat/1.png": b"cat", "pets/dog/2.png": b"dog"}


OUT = ("../x.png", "a/../../x.png", "/etc/x.png", "a" * 256)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(suffix, name) for suffix in (".zip", ".tar") for name in OUT] + [(".zip", "C:\\x.png"), (".zip", "..\\x.png")],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, folder: Path, suffix: str, name: str) -> None:
    file = tmp_path / f"evil{suffix}"
    zipped(file, {name: b"x"}) if suffix == ".zip" else tarred(file, {name: b"x"})

    with pytest.raises(DataError, match="not a name for a file inside the folder"):
        unpack(file, folder)
    assert [path.name for path in tmp_path.iterdir() if path not in (file, folder)] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_special_files_are_refused_by_name(tmp_path: Path, folder: Path, kind: bytes) -> None:
    file = tarred(tmp_path / "links.tar", {"a/1.png": b""}, type=kind, linkname="/etc/passwd")

    with pytest.raises(DataError, match=r"a/1\.png: it is a link or a special file"):
        unpack(file, folder)
    assert contents(folder) == {}


def test_a_link_in_a_zip_file_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    member = zipfile.ZipInfo("a/1.png")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")

    with pytest.raises(DataError, match=r"a/1\.png: it is a link"):
        unpack(tmp_path / "links.zip", folder)


def test_an_encrypted_member_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    file = zipped(tmp_path / "secret.zip", {"a/1.png": b"x"})
    content = bytearray(file.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)

    with pytest.raises(DataError, match=r"a/1\.png: it is encrypted[\s\S]*with its password"):
        unpack(file, folder)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_content_far_larger_than_the_archive_is_refused_while_it_is_unpacked(
    tmp_path: Path, folder: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS", 100_000)
    file, members = tmp_path / f"bomb{suffix}", {f"a/{n}.png": bytes(1 << 20) for n in range(4)}
    zipped(file, members) if suffix == ".zip" else tarred(file, members, MODES[suffix])

    with pytest.raises(DataError, match=r"the content has more than|more than .* MB of content"):
        unpack(file, folder)
    assert sum(map(len, contents(folder).values())) <= max(100_000, 200 * file.stat().st_size)


def test_more_members_than_allowed_are_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 3)
    with pytest.raises(DataError, match="a/3: it is the member after 3 others"):
        unpack(zipped(tmp_path / "many.zip", {f"a/{n}": b"" for n in range(9)}), folder)


def test_a_header_that_would_fill_the_memory_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_members, "HEADER", 10_000)
    file = tarred(tmp_path / "long.tar.gz", {f"a/{'x/' * 20_000}1.png": b""}, "w:gz")

    with pytest.raises(DataError, match="10,000 are allowed"):
        unpack(file, folder)


def test_a_table_of_contents_that_would_fill_the_memory_is_refused(tmp_path: Path, folder: Path) -> None:
    file = zipped(tmp_path / "large.zip", {"a/1.png": b"x"})
    content = bytearray(file.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\5\6") + 12, 1 << 31)
    file.write_bytes(content)

    with pytest.raises(DataError, match=r"its table of contents: it has 2,147 MB"):
        unpack(file, folder)


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("a/1.png", b"x"), ("a/1.png", b"y")], "two members have this name"),
        ([("a", b"x"), ("a/1.png", b"y")], "a file and a folder have this name"),
    ],
)
def test_members_that_exclude_each_other_are_refused(
    tmp_path: Path, folder: Path, members: list[tuple[str, bytes]], told: str
) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    with pytest.raises(DataError, match=told):
        unpack(tmp_path / "twice.tar", folder)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (suffix, damage)
        for suffix in (".zip", *MODES)
        for damage in ("cut", "no archive", "empty", "flipped")
        if (suffix, damage) != (".tar", "flipped")  # tar has no checksum of the content
    ],
)
def test_damaged_archives_are_one_error(tmp_path: Path, folder: Path, suffix: str, damage: str) -> None:
    file, members = tmp_path / f"pets{suffix}", {f"a/{n}.png": bytes(range(256)) * 9 for n in range(5)}
    zipped(file, members) if suffix == ".zip" else tarred(file, members, MODES[suffix])
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 255
    changed = {"cut": whole[: len(whole) // 3], "no archive": b"pictures", "empty": b"", "flipped": whole}
    file.write_bytes(changed[damage])

    with pytest.raises(DataError, match=r"is damaged, or no archive|cannot be unpacked"):
        unpack(file, folder)


def test_names_in_utf_8_that_are_not_marked_so_are_read_as_utf_8(tmp_path: Path, folder: Path) -> None:
    file = zipped(tmp_path / "mac.zip", {"K\u00e4fer/1.png": b"x"})
    content = bytearray(file.read_bytes())
    content[7] &= ~0x08
    content[content.index(b"PK\1\2") + 9] &= ~0x08
    file.write_bytes(content)

    unpack(file, folder)
    assert list(contents(folder)) == ["K\u00e4fer/1.png"]


def test_a_name_that_is_not_utf_8_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    with tarfile.open(tmp_path / "old.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("K\u00e4fer/1.png"))

    with pytest.raises(DataError, match=r"K\\udce4fer/1\.png: not a name"):
        unpack(tmp_path / "old.tar", folder)
