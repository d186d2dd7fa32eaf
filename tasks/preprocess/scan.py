"""The files of data/raw and what the data state about them: label, split, group, weight.

data/raw has one of three layouts: one folder per class; the same under train/, val/ and test/ (or two of them); a table
`labels.csv` with `path`, `label` and optionally `split`, `group`, `weight`. Several classes per image or numbers need
the table.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..common.core.errors import DataError
from ..common.data.task import Task
from .labels import COLUMNS as LABEL_COLUMNS
from .labels import read_labels, refuse_folders, text
from .layouts import SPLIT_NAMES as SPLIT_NAMES
from .layouts import TABLE as TABLE
from .layouts import hidden as hidden
from .layouts import split_folders
from .walk import list_files as list_files

COLUMNS = ["path", "label", "split", "group", "weight"]


def scan(raw: Path, task: Task = "classification") -> pd.DataFrame:
    """Every file below `raw` that could be an image, sorted by path.

    Returns:
        Columns `path` (relative, with slashes), `label` (see `read_labels`), `split` (given by the data, or null),
        `group` (or null), `weight`. The label is null for a file without one.

    Raises:
        DataError: there are no files; the table lacks a column, or names a file twice or one that does not exist; split
            folders have no training images; there is no table, but the labels are not single classes; an entry cannot
            be listed (see `list_files`).
    """
    files = list_files(raw)
    if not files:
        raise DataError(f"{raw} contains no files", todo="run `graft import PATH`, or `graft sample` for an example")
    if TABLE in files:
        return given_splits(_from_table(raw, files, task))
    refuse_folders(raw, task)
    tops = {PurePosixPath(file).parts[0] for file in files if "/" in file and not hidden(file)}
    if split_folders(tops):
        return given_splits(_from_split_folders(files))
    return _from_class_folders(files)


def _rows(rows: list[tuple[str, str | None, str | None]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["path", "label", "split"], dtype=object)
    return table.assign(group=None, weight=1.0)[COLUMNS]


def _from_class_folders(files: list[str]) -> pd.DataFrame:
    return _rows([(file, PurePosixPath(file).parts[0] if "/" in file else None, None) for file in files])


def _from_split_folders(files: list[str]) -> pd.DataFrame:
    rows: list[tuple[str, str | None, str | None]] = []
    for file in files:
        parts = PurePosixPath(file).parts
        placed = len(parts) > 2
        rows.append((file, parts[1] if placed else None, SPLIT_NAMES.get(parts[0].lower())))
    return _rows(rows)


def _from_table(raw: Path, files: list[str], task: Task) -> pd.DataFrame:
    table = read_table(raw / TABLE, task)
    absent = sorted(set(table["path"]) - set(files))
    if absent:
        raise DataError(
            f"{raw / TABLE} names files that do not exist",
            got=f"{len(absent)} of {len(table)}, first {absent[0]}",
            todo="add the files or remove the rows",
        )
    unnamed = [file for file in files if file != TABLE and file not in set(table["path"])]
    rest = pd.DataFrame({"path": unnamed, "label": None, "split": None, "group": None, "weight": 1.0}, dtype=object)
    parts = [part for part in (table, rest) if len(part)]
    return pd.concat(parts).sort_values("path", ignore_index=True)[COLUMNS].astype({"weight": float})


def read_table(path: Path, task: Task = "classification") -> pd.DataFrame:
    """A CSV or Parquet table of images with the columns of `COLUMNS`, the optional ones filled in.

    Raises:
        DataError: the table is unreadable or lacks a column, a path occurs twice, or a label (for this task), split or
            weight is invalid. Other columns are ignored.
    """
    try:
        table = (
            pd.read_parquet(path)
            if path.suffix.lower() == ".parquet"
            else pd.read_csv(path, dtype=str, keep_default_na=False)
        )
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table", got=str(error), allowed="CSV or Parquet") from error
    if "path" not in table.columns:
        raise DataError(
            f"{path} lacks the column path",
            got=", ".join(map(str, table.columns)),
            allowed=f"path, {LABEL_COLUMNS[task]}, and optionally split, group, weight",
            todo="rename or add the column",
        )
    labels = read_labels(table, path, task)
    table = pd.DataFrame({name: table.get(name) for name in COLUMNS}).assign(label=labels)
    for name in ("path", "split", "group"):
        table[name] = table[name].map(text).astype(object)
    _check_table(table, path)
    table["split"] = table["split"].map(lambda value: value and SPLIT_NAMES[value.lower()]).astype(object)
    table["weight"] = pd.to_numeric(table["weight"].replace("", None)).fillna(1.0).astype(float)
    return table


def _check_table(table: pd.DataFrame, path: Path) -> None:
    for name in ("path", "label"):
        if table[name].isna().any():
            raise DataError(
                f"{path}: row {table[name].isna().argmax() + 1} has no {name}", todo="fill it in or remove the row"
            )
    twice = table["path"][table["path"].duplicated()]
    if len(twice):
        raise DataError(f"{path} names a file twice", got=twice.iloc[0], todo="remove one of the rows")
    strange = sorted({value for value in table["split"].dropna() if value.lower() not in SPLIT_NAMES})
    if strange:
        raise DataError(f"{path}: unknown split", got=strange[0], allowed="train | val | test, or empty")
    weights = pd.to_numeric(table["weight"].replace("", None), errors="coerce")
    bad = table["weight"].notna() & (table["weight"] != "") & ~((weights > 0) & np.isfinite(weights))
    if bad.any():
        raise DataError(f"{path}: a weight is not a positive number", got=table["weight"][bad].iloc[0], allowed="> 0")


def given_splits(table: pd.DataFrame) -> pd.DataFrame:
    """The splits of the data as Graft's three.

    With training and validation images but no test images, the images called validation become the test (as tutorials
    use them), and a validation split is taken from the training images. If no split is given, the hash decides.
    """
    present = set(table["split"].dropna())
    if present and not table["split"].isna().any() and ("train" not in present or present == {"train"}):
        raise DataError(
            "the data have a split of their own, but not one to train on and one to test on",
            got=f"only {' and '.join(sorted(present))}",
            allowed="train with val, test or both; or no split at all, then Graft makes it",
            todo="add the missing images, or remove the split from the table (import the one folder itself)",
        )
    if "val" in present and "test" not in present:
        table = table.assign(split=table["split"].replace({"val": "test"}))
    return table
