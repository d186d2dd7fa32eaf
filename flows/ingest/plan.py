"""The plan of an import: the layout of the source, the files to take and their places. Nothing is copied."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.manifest import names_in
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.labels import refuse_folders
from graft.tasks.preprocess.scan import SPLIT_NAMES, TABLE, given_splits, hidden, read_table
from graft.tasks.preprocess.walk import Listing, refuse_what_was_missed, walk


@dataclass(frozen=True)
class Plan:
    """What an import will do.

    Attributes:
        form: `classes`, `splits` or `table`.
        files: the place below data/raw -> the file to take, by a path without links.
        source: the folder that holds `files`.
        table: the rows of labels.csv, for the form `table`.
        hidden: number of files left out, such as .DS_Store.
        repeated: number of links left out because their target is taken under another name.
        task: what the labels are.
    """

    form: str
    files: dict[str, Path]
    source: Path
    table: pd.DataFrame | None = None
    hidden: int = 0
    repeated: int = 0
    task: Task = "classification"

    def summary(self) -> dict[str, object]:
        left_out = {"hidden_left_out": self.hidden, "repeated_links_left_out": self.repeated}
        return {"form": self.form, "files": len(self.files), **self._labels(), **left_out}

    def _labels(self) -> dict[str, object]:
        if self.task == "regression":
            numbers = [] if self.table is None else self.table["label"].astype(float)
            return {"least": min(numbers, default=None), "most": max(numbers, default=None)}
        if self.table is None:
            place = 1 if self.form == "splits" else 0
            names = [PurePosixPath(name).parts[place] for name in self.files]
        else:
            labels = self.table["label"]
            names = list(labels) if self.task == "classification" else labels.map(names_in).explode().dropna()
        return {"classes": dict(sorted(Counter(names).items()))}


def plan_import(source: Path, task: Task = "classification", *, outside: bool = False, joining: bool = False) -> Plan:
    """Recognises the layout of `source`; `task` says what its labels are.

    Args:
        outside: also take files that links, or a table's rows, name outside the folder.
        joining: the images are added to others, so they need no split to train on and none to test on.

    Raises:
        DataError: it does not exist, has no known layout, or holds files that cannot be imported.
    """
    if not source.exists():
        raise DataError(
            f"{source} does not exist", allowed="a folder of images, or a CSV or Parquet table", todo="correct the path"
        )
    if source.is_file():
        return _plan_table(source, task, outside, joining)
    listing = walk(source, outside=outside)
    files = [file for file in listing.files if not hidden(file)]
    if TABLE in files:
        return _plan_table(source / TABLE, task, outside, joining)
    refuse_what_was_missed(source, listing)
    refuse_folders(source, task)
    return _plan_folders(source, listing, files, joining)


def _plan_folders(source: Path, listing: Listing, files: list[str], joining: bool) -> Plan:
    tops = {PurePosixPath(file).parts[0] for file in files if "/" in file}
    if not tops:
        raise DataError(
            f"{source} has no folders of images",
            got=f"{len(files)} files and no folder" if files else "an empty folder",
            allowed="one folder per class; train/, val/, test/ with one folder per class; or a table of path and label",
            todo="sort the images into one folder per class, or write a table",
        )
    split = _are_splits(source, tops)
    if split:
        _refuse_flat_splits(source, files)
    if split and not joining:
        _check_split_folders(source, tops)
    return Plan(
        "splits" if split else "classes",
        {file: listing.files[file] for file in files if "/" in file},
        source,
        hidden=len(listing.files) - len(files),
        repeated=len(listing.repeated),
    )


def _are_splits(source: Path, tops: set[str]) -> bool:
    """Whether the top folders are splits rather than classes."""
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if splits and splits != tops:
        raise DataError(
            f"{source} mixes split folders with others",
            got=", ".join(sorted(tops)[:8]),
            allowed="only train/, val/, test/, or only folders of classes",
            todo="move the other folders away, or rename the class that has the name of a split",
        )
    return bool(splits)


def _check_split_folders(source: Path, tops: set[str]) -> None:
    given_splits(pd.DataFrame({"split": [SPLIT_NAMES[top.lower()] for top in sorted(tops)]}))
    if len(tops) == 1:
        raise DataError(
            f"{source} has only one split folder",
            got=next(iter(tops)),
            allowed="train/ with val/, test/ or both; or folders of classes",
            todo=f"import {source / next(iter(tops))} itself: Graft then makes the splits",
        )


def _refuse_flat_splits(source: Path, files: list[str]) -> None:
    flat = [file for file in files if file.count("/") == 1]
    if flat:
        raise DataError(
            f"{source}: images in a split folder without a class",
            got=flat[0],
            allowed="SPLIT/CLASS/IMAGE",
            todo="put them into one folder per class",
        )


def _plan_table(file: Path, task: Task, outside: bool, joining: bool) -> Plan:
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(
            f"{file} is neither a folder nor a table", got=file.suffix or "no suffix", allowed=".csv or .parquet"
        )
    table = read_table(file, task)
    if not joining:
        given_splits(table)  # refuses splits that leave nothing to train or to test on
    places: list[str] = []
    files: dict[str, Path] = {}
    for row, name in enumerate(table["path"], 1):
        image, place = _image_of_row(file, row, name, outside), _inside(name)
        if files.setdefault(place, image) != image:
            raise DataError(
                f"{file}: two rows would be copied to the same place",
                got=f"{name} as {place}",
                todo="rename one of the files",
            )
        places.append(place)
    return Plan("table", files, file.parent, table.assign(path=places), task=task)


def _image_of_row(table: Path, row: int, name: str, outside: bool) -> Path:
    """The file, with all links resolved; rows count from 1, without the header."""
    folder, image = Path(os.path.realpath(table.parent)), Path(os.path.realpath(table.parent / name))
    if not outside and not image.is_relative_to(folder):
        raise DataError(
            f"{table} names a file outside its folder",
            got=f"row {row}: {name}" + ("" if image == folder / name else f", which is {image}"),
            allowed=f"files below {folder}",
            todo="correct the row, or `--allow-outside` if you trust the table",
        )
    if not image.exists():
        raise DataError(
            f"{table} names a file that does not exist",
            got=f"row {row}: {name}",
            todo="correct the row; paths are relative to the table's folder",
        )
    if not stat.S_ISREG(image.stat().st_mode):
        raise DataError(f"{table} names a special file", got=f"row {row}: {name}", todo="correct the row")
    return image


def _inside(name: str) -> str:
    """The place below data/raw for a path in a table, which may be absolute or contain `..`."""
    parts = [part for part in PurePosixPath(Path(name).as_posix()).parts if part not in ("/", "..", ".")]
    return "images/" + "/".join(part.replace(":", "") for part in parts)


def joined(plan: Plan, raw: Path) -> Plan:
    """The plan for images that are added to others of the same layout."""
    now = plan_import(raw, plan.task, outside=True)  # DVC's own links lead to its cache
    if now.form != plan.form:
        raise DataError(
            "the new images have another layout than those in data/raw",
            got=plan.form,
            allowed=now.form,
            todo="arrange them in the same layout, or use `--replace`",
        )
    for name, file in plan.files.items():
        old = raw / name
        if old.is_file() and old.read_bytes() != file.read_bytes():
            raise DataError("data/raw has another image of this name", got=name, todo="rename the new one")
    if plan.table is None or now.table is None:
        return plan
    table = pd.concat([now.table.assign(path=[name.removeprefix("images/") for name in now.table["path"]]), plan.table])
    return replace(plan, table=table.drop_duplicates("path", keep="last"))
