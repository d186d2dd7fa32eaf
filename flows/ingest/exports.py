"""Tables that tools put beside images: Graft's labels.csv, Hugging Face's metadata, Roboflow's classes; one for all
images, or one in each split folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.words import listed
from graft.tasks.common.data.task import Task
from graft.tasks.common.images.shards import stored
from graft.tasks.preprocess.image_table import Files, complete_table
from graft.tasks.preprocess.layouts import FURTHER, KNOWN, ONE_CLASS, SPLIT_NAMES, TABLE, may_be_image
from graft.tasks.preprocess.tables import Table, load_table, refuse_rows

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Hugging Face's `imagefolder`: a column `file_name`, and others."""

LOOKED_AT = 1000
"""Folders that are searched for a missing file, to name the right path."""

CLASSES = "_classes.csv"
"""Roboflow's classification export: a column `filename`, and one of zeros and ones for each class."""

BOXES = {
    "data.yaml": "YOLO", "_annotations.coco.json": "COCO", "_annotations.csv": "TensorFlow or RetinaNet",
    "_annotations.txt": "YOLO", "_annotations.createml.json": "CreateML",
}  # fmt: skip
"""Files of exports that label parts of images."""


@dataclass(frozen=True)
class Below(Files):
    """The files of a table's folder, and whatever its rows lead to."""

    folder: Path

    def __contains__(self, name: object) -> bool:
        place = self.folder / str(name)
        if os.path.exists(place):  # noqa: PTH110  (`Path.exists` fails for names that are too long)
            return True
        return "\0" not in str(name) and stored(place) is not None

    def alike(self, name: str) -> str:
        wanted = PurePosixPath(name.replace("\\", "/")).name.lower()
        for inside, _, files in islice(os.walk(self.folder), LOOKED_AT):
            for file in files:
                if wanted in (file.lower(), PurePosixPath(file).stem.lower()):
                    return PurePosixPath(os.path.relpath(inside, self.folder), file).as_posix()
        return ""


@dataclass(frozen=True)
class Export:
    """The tables of a folder.

    Attributes:
        base: the folder that holds all images and tables, relative to the imported one; empty for itself.
        tables: the tables' names, relative to the imported folder.
    """

    base: str
    tables: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The tables' name, in small letters."""
        return _last(self.tables[0])


def find_export(files: Iterable[str]) -> Export | None:
    """The tables that cover all images of a folder, given its files; of several, the highest ones, and labels.csv
    before others."""
    files = list(files)
    kinds = [TABLE, *METADATA, CLASSES]
    found = [(file.count("/"), kinds.index(kind), file) for file in files if (kind := _last(file)) in kinds]
    if not found:
        return None
    best = min(found)[:2]
    tables = tuple(sorted(file for *order, file in found if tuple(order) == best))
    folders = {file.rpartition("/")[0] for file in tables}
    if all(_last(folder) in SPLIT_NAMES for folder in folders):
        folders = {folder.rpartition("/")[0] for folder in folders}
    base = folders.pop()
    covered = all(not base or file.startswith(f"{base}/") for file in files if may_be_image(file))
    return Export(base, tables) if covered and not folders else None


def _last(file: str) -> str:
    return file.rpartition("/")[2].lower()


def read_export(folder: Path, export: Export, task: Task) -> Table | None:
    """The rows of all tables, with paths relative to the export's base; null if the tables state no labels.

    Raises:
        DataError: a table cannot be read, or has rows that cannot be used.
    """
    parts, notes = [], dict[str, None]()
    for name in export.tables:
        path = folder / name
        loaded = load_table(path)
        if export.kind in METADATA and not _has_labels(loaded.rows):
            return None
        rows = _one_column(loaded.rows, path, task) if export.kind == CLASSES else loaded.rows
        below = name.rpartition("/")[0].removeprefix(export.base).strip("/")
        rows = complete_table(rows, path, task, Below(path.parent))
        parts.append(_in_split(rows, below) if below else rows)
        notes |= dict.fromkeys(loaded.notes)
    return Table(pd.concat(parts, ignore_index=True), tuple(notes))


def _has_labels(rows: pd.DataFrame) -> bool:
    return any(name in ("label", "target") or str(name).startswith(ONE_CLASS) for name in rows.columns)


def _in_split(rows: pd.DataFrame, below: str) -> pd.DataFrame:
    """The table of a split folder states only paths below it."""
    split = rows["split"].fillna(SPLIT_NAMES[below.lower()])
    paths = {
        name: rows[name].map(lambda path: f"{below}/{path}", na_action="ignore").astype(object)
        for name in ("path", *FURTHER)
    }
    return rows.assign(**paths, split=split.astype(object))


def _one_column(rows: pd.DataFrame, path: Path, task: Task) -> pd.DataFrame:
    """Roboflow's columns of zeros and ones as the columns, or the one column, that Graft reads.

    Raises:
        DataError: an image has several classes or none, and the project has one class an image.
    """
    classes = [name for name in rows.columns if name != "path"]
    if task == "regression" or not classes:
        raise DataError(
            f"{path} states classes, and `head.task` is {task}",
            got=listed(classes) or "no column of a class",
            todo="set `head.task: classification` or `multilabel` in params.yaml",
        )
    if task == "multilabel":
        return rows.rename(columns={name: f"{ONE_CLASS}{name}" for name in classes})
    cells = rows[classes].to_numpy(str)
    has = cells == "1"
    wrong = ((cells != "1") & (cells != "0")).any(axis=1) | (has.sum(axis=1) != 1)
    refuse_rows(
        path,
        [(row, " ".join(found)) for row, found in enumerate(cells.tolist(), 1) if wrong[row - 1]],
        "without exactly one class",
        allowed="a single 1 in each row, and 0 in the other columns",
        todo="if an image has several classes or none, set `head.task: multilabel` in params.yaml",
    )
    return rows[["path"]].assign(label=[str(classes[place]) for place in has.argmax(axis=1)])


def refuse_boxes(source: Path, files: Iterable[str]) -> None:
    """Raises:
    DataError: the files are an export that labels parts of images.
    """
    found = sorted({(name, BOXES[last]) for name in files if (last := _last(name)) in BOXES})
    if found:
        raise DataError(
            f"{source} is an export for object detection or segmentation ({found[0][1]})",
            got=found[0][0],
            allowed=KNOWN,
            todo="export it for classification: Roboflow calls this `Folder Structure` or `Multi-Label Classification`",
        )
