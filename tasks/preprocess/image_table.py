"""A table of images: a path and a label a row, optionally split, group, weight, mask, target; bad rows are named."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.core.errors import DataError
from ..common.core.words import listed
from ..common.data.task import Task
from .labels import COLUMNS as LABEL_COLUMNS
from .labels import is_list, read_labels, text
from .layouts import FURTHER, SPLIT_NAMES, TARGET, WITH_MASKS
from .tables import Table, load_table, refuse_rows, spellings

COLUMNS = ["path", "label", "split", "group", "weight", *FURTHER]


class Files(Container[str]):
    """The files that a table may name; this one contains all, for a table without its images."""

    def __contains__(self, name: object) -> bool:
        return True

    def alike(self, name: str) -> str:
        """A file with the same last name; empty if there is none."""
        return ""


ANY = Files()


def read_table(path: Path, task: Task = "classification", files: Files = ANY) -> Table:
    """A table of images with the columns of `COLUMNS`, the optional ones filled in.

    Args:
        files: of the spellings of a path, the first in `files` is taken.

    Raises:
        DataError: see `load_table` and `complete_table`.
    """
    table = load_table(path)
    return Table(complete_table(table.rows, path, task, files), table.notes)


def complete_table(rows: pd.DataFrame, path: Path, task: Task, files: Files = ANY) -> pd.DataFrame:
    """The rows that were read from `path`, checked, with the columns of `COLUMNS` only.

    Raises:
        DataError: the table lacks a column, a path occurs twice or is not in `files`, or a label (for this task),
            split, weight or mask is invalid.
    """
    if "path" not in rows.columns:
        raise DataError(
            f"{path} lacks the column path",
            got=listed(rows.columns),
            allowed=f"path (or filename, file_name, image, ...), {LABEL_COLUMNS[task]}, and optionally split, group, "
            "weight",
            todo="rename or add the column",
        )
    labels = read_labels(rows, path, task)
    table = pd.DataFrame({name: rows.get(name) for name in COLUMNS}, index=rows.index).assign(label=labels)
    table["path"] = table["path"].map(lambda cell: _path(cell, path, files)).astype(object)
    for name in FURTHER:
        used = task == "reconstruction" or (task in WITH_MASKS and name != TARGET)
        named = table[name] if used else pd.Series(None, table.index, dtype=object)
        table[name] = named.map(lambda cell: _path(cell, path, files)).astype(object)
    for name in ("split", "group"):
        table[name] = table[name].map(text).astype(object)
    weights = table["weight"].map(text).fillna("1")
    numbers = pd.to_numeric(weights, errors="coerce")
    _refuse_bad_rows(table, path, weights.where(~((numbers > 0) & np.isfinite(numbers))), files)
    splits = [None if pd.isna(value) else SPLIT_NAMES[value.lower()] for value in table["split"]]
    return table.assign(split=pd.Series(splits, table.index, dtype=object), weight=numbers.astype(float))


def _path(cell: Any, table: Path, files: Files) -> str | None:
    if isinstance(cell, dict) or is_list(cell):
        raise DataError(
            f"{table} does not name files",
            got=f"a cell of the column path is a {type(cell).__name__}",
            allowed="paths of image files",
            todo="write the images to files, and their paths into the table",
        )
    written = text(cell)
    if written is None:
        return None
    variants = spellings(written)
    return next((variant for variant in variants if variant in files), variants[0])


def _refuse_bad_rows(table: pd.DataFrame, path: Path, bad_weights: pd.Series, files: Files) -> None:
    """All bad rows at once. `bad_weights` is null where a weight is good."""
    absent = [name for column in ("path", *FURTHER) for name in table[column].dropna() if name not in files]
    alike = files.alike(absent[0]) if absent else ""
    refuse_rows(
        path,
        _bad_rows(table, bad_weights, {*absent}),
        "that cannot be used",
        allowed="in each row a path of its own, relative to the folder of the table, and a label; split: train | val | "
        "test, or empty; weight above 0, or empty",
        todo="correct or remove the rows" + (f"; for {absent[0]} you may mean {alike}" if alike else ""),
    )


def _bad_rows(table: pd.DataFrame, bad_weights: pd.Series, absent: set[str]) -> Iterator[tuple[int, str]]:
    first = {name: row for row, name in reversed(list(enumerate(table["path"], 1)))}
    columns = (table["path"], table["label"], table["split"], bad_weights, *(table[name] for name in FURTHER))
    for row, (name, label, split, weight, *further) in enumerate(zip(*columns, strict=True), 1):
        if pd.isna(name):
            yield row, "no path"
        elif first[name] != row:
            yield row, f"{name} for the second time, after row {first[name]}"
        elif name in absent:
            yield row, f"{name} does not exist"
        if pd.isna(label):
            yield row, "no label"
        if not pd.isna(split) and split.lower() not in SPLIT_NAMES:
            yield row, f"unknown split {split}"
        if not pd.isna(weight):
            yield row, f"weight {weight}, which is not a positive number"
        for column, other in zip(FURTHER, further, strict=True):
            if not pd.isna(other) and other in absent:
                yield row, f"the {column} {other} does not exist"
            elif not pd.isna(other) and other in first:
                yield row, f"the {column} {other}, which is an image of row {first[other]}"
