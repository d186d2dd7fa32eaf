"""Tar files in WebDataset's form are taken as they are; those that are no plain files are refused by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import Project, draw

from graft.flows.ingest import tar_members
from graft.flows.ingest.importing import import_images, preview_images
from graft.flows.ingest.plan import plan_import
from graft.flows.ingest.webdataset import is_sample_set
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.task import Task
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import content_of
from graft.tasks.preprocess.scan import scan

COLOURS = ("red", "green", "blue")
Members = dict[str, bytes]


def picture(colour: int, number: int, folder: Path) -> bytes:
    draw(folder / "one.png", colour, number)
    return (folder / "one.png").read_bytes()


def write(file: Path, members: Members) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def labelled(folder: Path, state: Callable[[int], Members], numbers: range) -> Members:
    """A picture and what states its label, for each number; colours take turns."""
    found: Members = {}
    for number in numbers:
        found[f"{number:04}.png"] = picture(number % 3, number, folder)
        found |= {f"{number:04}.{ending}": data for ending, data in state(number).items()}
    return found


STATED: dict[str, Callable[[int], Members]] = {
    "cls": lambda number: {"cls": str(number % 3).encode()},
    "txt": lambda number: {"txt": f"{COLOURS[number % 3]}\n".encode(), "seg.png": b"x"},
    "json": lambda number: {"json": json.dumps({"width": 32, "label": COLOURS[number % 3]}).encode()},
}


@pytest.mark.parametrize("ending", [*STATED])
def test_labels_beside_the_images_become_the_table(tmp_path: Path, ending: str) -> None:
    """The splits are in the names of the files; names that are in several files get that of the file before them."""
    source = tmp_path / "set"
    write(source / "train" / "0-0.tar", labelled(tmp_path, STATED[ending], range(6)))
    write(source / "set-train-1.tar", labelled(tmp_path, STATED[ending], range(6, 12)))
    write(source / "val" / "0-0.tar", labelled(tmp_path, STATED[ending], range(6)))
    (source / "classnames.txt").write_text("\n".join(COLOURS), encoding="utf-8")

    plan = plan_import(source)

    assert dict(plan.classes()) == dict.fromkeys(COLOURS, 6)
    assert {(path, label, split) for path, label, split in plan.rows[["path", "label", "split"]].to_numpy()} == {
        (f"{tar}/{number:04}.png", COLOURS[number % 3], split)
        for tar, split, numbers in (
            ("train-0-0", "train", range(6)),
            ("set-train-1", "train", range(6, 12)),
            ("val-0-0", "val", range(6)),
        )
        for number in numbers
    }
    assert ("a member that is neither an image nor a label" in plan.left_out.names) == (ending == "txt")


def test_tar_files_come_as_they_are_and_later_ones_are_added(empty_project: Project, tmp_path: Path) -> None:
    """Class folders in the members count where nothing states labels. What a killed or second import would break stays
    whole."""
    root, raw = empty_project.root, empty_project.root / "data" / "raw"
    content = {f"./{COLOURS[n % 3]}/{n}.png": picture(n % 3, n, tmp_path) for n in range(9)} | {"./.DS_Store": b"x"}
    first = write(tmp_path / "set" / "part.tar", content)
    more = write(tmp_path / "more" / "second.tar", {"red/more.png": picture(0, 77, tmp_path)})

    told = import_images(first.parent, root)
    assert (told["form"], told["files"], told["shards"]) == ("classes", 9, 1)
    assert import_images(more.parent, root, "add", link=True)["shards"] == 2
    assert (raw / "part.tar").read_bytes() == first.read_bytes()
    assert (raw / "second.tar").read_bytes() == more.read_bytes()
    assert dict(scan(raw)["label"].value_counts()) == {"red": 4, "green": 3, "blue": 3}
    with content_of(raw / "blue" / "2.png", Limits()) as data:
        assert data == picture(2, 2, tmp_path)

    before = {file.name: file.read_bytes() for file in raw.iterdir()}
    for source in (more.parent, write(tmp_path / "again" / "third.tar", {"red/more.png": b"other"}).parent):
        with pytest.raises(DataError, match="another image of this name"):
            import_images(source, root, "add")
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == before


def test_one_tar_file_of_samples_is_no_archive_to_unpack(empty_project: Project, tmp_path: Path) -> None:
    single = write(tmp_path / "all.tar", labelled(tmp_path, STATED["json"], range(9)))
    plain = write(tmp_path / "plain.tar", {"red/1.png": b"x", "red/1.txt": b"x", "blue/2.png": b"x"})

    assert is_sample_set(single)
    assert preview_images(single, empty_project.root)["shards"] == 1
    assert not is_sample_set(write(tmp_path / "folders.tar", {"red/1.png": b"x", "blue/2.png": b"x"}))
    assert is_sample_set(plain)


def special(file: Path, kind: bytes, name: str = "a.png") -> None:
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../../etc/passwd"
        archive.addfile(member)


def cut(file: Path, members: Members, left: int) -> None:
    data = write(file, members).read_bytes()
    file.write_bytes(data[:left])


def bomb(file: Path) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"comment": "x" * 20_000}
        archive.addfile(member)


ONE = {"a.png": b"1", "a.cls": b"0"}

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda file: special(file, tarfile.SYMTYPE), r"a\.png: it is a link or a special file"),
    "a hard link": (lambda file: special(file, tarfile.LNKTYPE), "it is a link or a special file"),
    "a device": (lambda file: special(file, tarfile.CHRTYPE), "it is a link or a special file"),
    "a sparse member": (lambda file: special(file, tarfile.GNUTYPE_SPARSE), "special file|damaged"),
    "upwards": (lambda file: write(file, {"../a.png": b"1"}), r"\.\./a\.png: not a name"),
    "absolute": (lambda file: write(file, {"/etc/a.png": b"1"}), "not a name for a file inside"),
    "twice": (lambda file: write(file, {"a.png": b"1", "./a.png": b"2"}), r"a\.png: two members have this name"),
    "cut in a member": (lambda file: cut(file, {"a.png": bytes(5000)}, 3000), "damaged"),
    "cut between members": (lambda file: cut(file, ONE, 1024), "the end is missing"),
    "garbage in the middle": (
        lambda file: file.write_bytes(write(file, ONE).read_bytes()[:1024] + b"\1" * 9216),
        "cut, or",
    ),
    "a bomb of names": (bomb, "10,000 are allowed"),
    "no tar": (lambda file: file.write_bytes(b"x" * 2000), "damaged, or no tar file"),
    "no labels": (lambda file: write(file, {"a.png": b"1"}), "no folders of images"),
    "some labels": (lambda file: write(file, {**ONE, "b.png": b"1"}), r"without a label[\s\S]*1: b\.png"),
    "captions": (
        lambda file: write(file, {f"{n}.{e}": str(n).encode() for n in range(20) for e in ("png", "txt")}),
        "nearly as many labels as images",
    ),
    "two images": (lambda file: write(file, {**ONE, "a.jpg": b"1"}), r"several images[\s\S]*a\.png, a\.jpg"),
    "a label of bytes": (lambda file: write(file, {"a.png": b"1", "a.txt": b"\xff\xfe\xff"}), "no text in UTF-8"),
}


@pytest.mark.parametrize("case", [*HOSTILE])
def test_what_cannot_be_taken_as_it_is_is_refused_by_name(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_members, "HEADER", 10_000)
    (tmp_path / "set").mkdir()
    make, message = HOSTILE[case]
    make(tmp_path / "set" / "train-0.tar")

    with pytest.raises(DataError, match=message):
        plan_import(tmp_path / "set")


@pytest.mark.parametrize(
    ("task", "stated", "labels"),
    [
        ("multilabel", [{"label": ["a", "b"][: n % 3]} for n in range(4)], ["", "a", "a|b", ""]),
        ("regression", [{"target": n / 8} for n in range(40)], [str(n / 8) for n in range(40)]),
    ],
)
def test_several_classes_and_numbers_are_read_from_json(
    tmp_path: Path, task: Task, stated: list[object], labels: list[str]
) -> None:
    members = {f"{n}.png": b"1" for n in range(len(stated))}
    write(tmp_path / "set" / "x.tar", members | {f"{n}.json": json.dumps(one).encode() for n, one in enumerate(stated)})

    assert list(plan_import(tmp_path / "set", task).rows["label"]) == labels
