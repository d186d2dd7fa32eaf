"""The plan for a set in WebDataset's form: what its members state, in folders or beside the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.words import listed
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.image_table import complete_table
from graft.tasks.preprocess.learnable import refuse_no_good
from graft.tasks.preprocess.walk import Listing

from .plan_table import refuse_splits
from .planned import LeftOut, Plan
from .sharding import opened
from .webdataset import LABELS, TarFile, TarSet, key_of, read_tars, split_of

NO_SAMPLE = "a member that is neither an image nor a label"

CLASS_NAMES = ("classnames.txt", "class_names.txt", "classes.txt", "labels.txt")
"""Files beside the tar files with the name of a class in each line, for labels that are numbers of lines, from 0."""

MOST_NAMES = 1 << 20
"""Bytes of such a file."""

PlanFolders = Callable[[Path, Listing], Plan]
"""Plans the images of folders: the source, and its files."""


def plan_tars(
    source: Path, tars: Mapping[str, Path], listing: Listing, task: Task, joining: bool, folders: PlanFolders
) -> Plan:
    """The plan for tar files of samples; their labels, or else the folders in their members' names, are those of the
    images.

    Raises:
        DataError: see `read_tars` and `complete_table`; or only some images have a label.
    """
    found = read_tars(source, tars)
    splits = _splits(list(tars))
    stated = [tar.label_of(image) for tar, image in _images(found)]
    beside = any(label is not None for label in stated) or task == "reconstruction"
    names = _names(found, splits, beside)
    left = LeftOut()
    left.add(NO_SAMPLE, [f"{tar.name}: {name}" for tar in found for name in tar.left_out])
    if beside:
        plan = _plan_labels(source, found, names, stated, splits, listing, task, joining)
    else:
        files = {name: tar.path / image for (tar, image), name in zip(_images(found), names, strict=True)}
        plan = folders(source, Listing(files))
    left.names |= plan.left_out.names
    return replace(plan, content=_content(source, found, plan), left_out=left, notes=(_note(found), *plan.notes))


def _note(found: Sequence[TarFile]) -> str:
    return f"{len(found):,} tar files of WebDataset, taken as they are: {listed(tar.name for tar in found)}"


def _images(found: Sequence[TarFile]) -> Iterator[tuple[TarFile, str]]:
    return ((tar, image) for tar in found for image in tar.images)


def _splits(tars: Sequence[str]) -> list[str | None]:
    """The split of each tar file, if their names state more than one."""
    splits = [split_of(name) for name in tars]
    return splits if len({*splits} - {None}) > 1 else [None] * len(splits)


def _names(found: Sequence[TarFile], splits: Sequence[str | None], beside: bool) -> list[str]:
    """The name of each image: the member's own, if all differ, else with that of the tar file before it.

    Args:
        beside: whether the labels stand beside the images, and not in folders, whose first one states the split.
    """
    before = [f"{split}/" if split and not beside else "" for split in splits]
    names = [f"{prefix}{image}" for tar, prefix in zip(found, before, strict=True) for image in tar.images]
    if len({*names}) == len(names):
        return names
    if not beside:
        raise DataError(
            "tar files have images of the same name",
            got=Counter(names).most_common(1)[0][0],
            allowed="each name once in all tar files, where folders state the labels",
            todo="unpack them into one folder, and import that with `--shards`",
        )
    return [f"{tar.name[:-4]}/{image}" for tar, image in _images(found)]


def _plan_labels(
    source: Path,
    found: Sequence[TarFile],
    names: list[str],
    stated: list[Any],
    splits: Sequence[str | None],
    listing: Listing,
    task: Task,
    joining: bool,
) -> Plan:
    """The plan for images whose labels stand beside them."""
    _refuse_several_images(source, found)
    _refuse_unlabelled(source, names, stated, task)
    of_image = [split for tar, split in zip(found, splits, strict=True) for _ in tar.images]
    labels, note = _named(stated, source, listing)
    rows = pd.DataFrame({"path": names, "label": labels, "split": of_image}, dtype=object)
    if task == "reconstruction" and not any(label is not None for label in stated):
        rows = rows.drop(columns="label")
    rows = complete_table(rows, source, task)
    if not joining:
        refuse_splits(rows, source, task)
        if task == "anomaly":
            refuse_no_good(rows["label"], str(source))
    files = {name: tar.path / image for (tar, image), name in zip(_images(found), names, strict=True)}
    return Plan("table", files, source, rows, task=task, notes=note)


def _refuse_several_images(source: Path, found: Sequence[TarFile]) -> None:
    for tar in found:
        samples = Counter(key_of(image)[0] for image in tar.images)
        twice = next((key for key, count in samples.items() if count > 1), None)
        if twice is not None:
            raise DataError(
                f"{source} has samples with several images",
                got=f"{tar.name}: {', '.join(image for image in tar.images if key_of(image)[0] == twice)}",
                allowed="one image in each sample, and its label",
                todo="write the sample with the image to classify alone",
            )


def _refuse_unlabelled(source: Path, names: list[str], stated: list[Any], task: Task) -> None:
    without = [name for name, label in zip(names, stated, strict=True) if label is None]
    if without and task != "reconstruction":
        raise DataError(
            f"{source} has images without a label, among others that have one",
            got=f"{len(without):,}: {', '.join(without[:5])}",
            allowed=f"in each sample an image, and a member that ends in {', '.join(f'.{one}' for one in LABELS)}",
            todo="add the labels, or take the images out",
        )
    texts = {str(label) for label in stated}
    if task != "regression" and len(texts) > 10 and len(texts) > len(stated) / 2:
        raise DataError(
            f"{source} has nearly as many labels as images",
            got=f"{len(texts):,} for {len(stated):,} images, such as {', '.join(sorted(texts)[:3])}",
            allowed="one of a few classes for each image",
            todo="for captions, write a table of path and label; for numbers, set `head.task: regression`",
        )


def _named(stated: list[Any], source: Path, listing: Listing) -> tuple[list[Any], tuple[str, ...]]:
    """The labels by their names, if a file beside the tar files has these."""
    file = next((listing.files[name] for name in CLASS_NAMES if name in listing.files), None)
    if file is None or not all(str(label).isdecimal() for label in stated):
        return stated, ()
    with opened(file, source) as (content, _):
        names = content.read(MOST_NAMES).decode("utf-8", "replace").splitlines()
    wrong = [label for label in stated if int(label) >= len(names)]
    if wrong:
        raise DataError(f"{file} has too few names", got=f"{len(names):,}", allowed=f"more than {wrong[0]}")
    return [names[int(label)] for label in stated], (f"names of the classes: {file.name}",)


def _content(source: Path, found: Sequence[TarFile], plan: Plan) -> TarSet:
    """Each planned file is a tar file and a member."""
    members: dict[Path, dict[str, str]] = {tar.path: {} for tar in found}
    depth = {path: len(path.parts) for path in members}
    for place, file in plan.files.items():
        tar = next(path for path in (file, *file.parents) if path in members)
        members[tar]["/".join(file.parts[depth[tar] :])] = place
    return TarSet(source, {tar.name: tar.path for tar in found}, {tar.name: members[tar.path] for tar in found})
