"""Sets of images in the form of WebDataset: tar files in which members with the same name, up to its first dot, are one
sample (`0001.jpg`, `0001.cls`). The tar files are taken as they are, and each gets an index."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.progress import progress
from graft.tasks.common.images.shard_writer import Index
from graft.tasks.common.images.shards import index_of
from graft.tasks.preprocess.layouts import SPLIT_NAMES, hidden
from graft.tasks.preprocess.walk import list_files

from .planned import Plan, another_image
from .raw_folder import refuse_too_large
from .sharding import opened
from .tar_members import AT_ONCE, DAMAGED, Direct, is_plain, relative, tar_members

IMAGES = frozenset(
    ("avif", "bmp", "gif", "heic", "heif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif",
     "tiff", "webp")
)  # fmt: skip
"""The endings of members that are images."""

LABELS = ("cls", "cls.txt", "label", "label.txt", "json", "txt")
"""The endings of members that may state a label, the best first."""

KEYS = ("label", "class", "class_name", "cls", "category", "labels", "classes", "target")
"""Where a JSON member may state the label."""

LARGEST_LABEL = 1 << 20
"""Bytes of a member that states a label."""

EXPECTED = "plain files with relative names in UTF-8, without `..`, each once"


@dataclass
class TarFile:
    """What the headers of a tar file say.

    Attributes:
        path: the file.
        name: its name in data/raw.
        images: the members that are images, by their names.
        labels: key of a sample -> ending -> text.
        left_out: members that are neither.
    """

    path: Path
    name: str
    images: list[str] = field(default_factory=list)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def label_of(self, image: str) -> Any:
        """What the sample's members state; None if nothing."""
        stated = self.labels.get(key_of(image)[0], {})
        for ending in LABELS:
            if ending in stated and (found := _stated(ending, stated[ending])) is not None:
                return found
        return None


def _stated(ending: str, text: str) -> Any:
    if ending != "json":
        return text.strip() or None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return content if isinstance(content, str | int | float) else None
    return next((content[key] for key in KEYS if content.get(key) is not None), None)


def key_of(name: str) -> tuple[str, str]:
    """(the sample that a member belongs to, its ending in small letters): the last part is divided at its first dot."""
    folder, slash, last = name.rpartition("/")
    key, _, ending = last.partition(".")
    return f"{folder}{slash}{key}", ending.lower()


def split_of(name: str) -> str | None:
    """The split that the name of a shard states, among other words: `imagenet-train-0001.tar`, `val/0001.tar`."""
    words = {SPLIT_NAMES[word] for word in re.split(r"[\W\d_]+", name.lower()) if word in SPLIT_NAMES}
    return words.pop() if len(words) == 1 else None


def tars_among(files: Mapping[str, Path]) -> dict[str, Path]:
    """The tar files of a folder, by their names."""
    return {name: file for name, file in files.items() if name.lower().endswith(".tar") and not hidden(name)}


def is_sample_set(file: Path) -> bool:
    """Whether a tar file begins with a sample of WebDataset's: an image and a label of the same name beside it."""
    found: dict[str, set[str]] = {}
    try:
        with file.open("rb") as content:
            for number, (_, member) in enumerate(tar_members(Direct(content, file.stat().st_size))):
                key, ending = key_of(member.name)
                found.setdefault(key, set()).add(ending)
                if found[key] & IMAGES and found[key] & {*LABELS}:
                    return True
                if number > 100:
                    break
    except (OSError, *DAMAGED):
        return False  # who unpacks it says what is wrong
    return False


def read_tars(source: Path, files: Mapping[str, Path]) -> list[TarFile]:
    """What the tar files of a folder hold; only their headers and labels are read.

    Raises:
        DataError: one is damaged, or has members that are no files, lead elsewhere or stand twice; or two have the
            same name.
    """
    found = []
    with progress("import: reading tar files", len(files), "files") as bar:
        for name, file in files.items():
            found.append(_read(file, name.replace("/", "-"), source))
            bar.add()
    twice = [name for name, count in Counter(tar.name for tar in found).items() if count > 1]
    if twice:
        raise DataError(
            f"{source} has tar files that would have the same name", got=twice[0], todo="rename one of them"
        )
    return found


def _read(file: Path, name: str, source: Path) -> TarFile:
    tar, seen = TarFile(file, f"{name[:-4]}.tar"), set[str]()
    with opened(file, source) as (content, _):
        for archive, member, place in _checked(content, file):
            if place in seen:
                raise refused(file, place, "two members have this name")
            seen.add(place)
            key, ending = key_of(place)
            if ending in IMAGES:
                tar.images.append(place)
            elif ending in LABELS:
                tar.labels.setdefault(key, {})[ending] = _text(archive, member, file)
            else:
                tar.left_out.append(place)
    return tar


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> str:
    if member.size > LARGEST_LABEL:
        raise refused(file, member.name, f"a label of {member.size:,} bytes")
    part = archive.extractfile(member)
    try:
        return part.read().decode() if part is not None else ""
    except UnicodeDecodeError as error:
        raise refused(file, member.name, "a label that is no text in UTF-8") from error


def _checked(content: IO[bytes], file: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, str]]:
    """(archive, member, its name), without folders and what systems leave behind."""
    try:
        for archive, member in tar_members(Direct(content, file.stat().st_size)):
            if member.isdir():
                continue
            place = relative(member.name)
            if place is None:
                raise refused(file, member.name, "not a name for a file inside the folder")
            if not is_plain(member):
                raise refused(file, place, "it is a link or a special file")
            if not hidden(place):
                yield archive, member, place
    except DAMAGED as error:
        raise DataError(
            f"{file} is damaged, or no tar file",
            got=str(error) or type(error).__name__,
            todo="download or pack it again",
        ) from error


def refused(file: Path, name: str, why: str) -> DataError:
    return DataError(
        f"{file} cannot be taken as it is",
        got=f"{name.encode('utf-8', 'backslashreplace').decode()}: {why}",
        allowed=EXPECTED,
        todo="unpack it where that does no harm, and import the folder with `--shards`",
    )


@dataclass(frozen=True)
class TarSet:
    """The images of tar files that are taken as they are, see `Content`.

    Attributes:
        source: the folder of the tar files.
        tars: name in data/raw -> the file.
        places: name in data/raw -> member -> its place below data/raw.
    """

    source: Path
    tars: Mapping[str, Path]
    places: Mapping[str, Mapping[str, str]]

    def shards(self, size_mb: int) -> int:
        return len(self.tars)

    def fill(self, folder: Path, plan: Plan, size_mb: int, *, link: bool) -> Plan:
        refuse_too_large(folder, 0 if link else sum(file.stat().st_size for file in self.tars.values()))
        there = {*list_files(folder)}
        if twice := [place for place in plan.files if place in there]:
            raise another_image(twice[0])
        with progress("import: copying tar files", len(plan.files), "images") as bar:
            for name, file in self.tars.items():
                shard = folder / name
                if shard.exists() or shard.with_name(index_of(name)).exists():
                    raise another_image(name)
                _bring(file, self.source, shard, link)
                _write_index(shard, self.places[name], bar.add)
        return plan


def _bring(file: Path, source: Path, shard: Path, link: bool) -> None:
    if link:
        os.link(file, shard)
        return
    with opened(file, source) as (content, _), shard.open("xb") as target:
        shutil.copyfileobj(content, target, AT_ONCE)


def _write_index(shard: Path, places: Mapping[str, str], tell: Callable[[], None]) -> None:
    """The index of the members that are images of the data, by what their bytes are now."""
    index, left = Index(), set(places)
    with shard.open("rb") as content:
        for archive, member, name in _checked(content, shard):
            if name in left:
                left.remove(name)
                index.add(places[name], _md5(archive, member), member.offset_data, member.size)
                tell()
    if left:
        raise DataError(
            f"{shard.name} changed while it was imported",
            got=f"no {min(left)}",
            todo="import it again when it is whole",
        )
    index.write(shard)


def _md5(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """In 16 bytes."""
    digest, part = hashlib.md5(usedforsecurity=False), archive.extractfile(member)
    while part is not None and (piece := part.read(AT_ONCE)):
        digest.update(piece)
    return digest.digest()
