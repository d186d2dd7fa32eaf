"""The labels in a table: a class, several classes or a number, converted to the text in the manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.core.errors import DataError
from ..common.core.words import listed
from ..common.data.manifest import BETWEEN
from ..common.data.task import GOOD, Task
from .class_names import class_name
from .layouts import MASK, ONE_CLASS, TARGET
from .tables import refuse_rows

COLUMNS: dict[Task, str] = {
    "classification": "label",
    "multilabel": f"label (classes with {BETWEEN} between them), or one column `{ONE_CLASS}NAME` of 0 and 1 per class",
    "regression": f"label or {TARGET} (a number)",
    "anomaly": f"label (`{GOOD}` or a kind of defect), and optionally {MASK}",
    "reconstruction": f"optionally label, {MASK} and {TARGET}",
}
"""The columns that a table needs besides `path`."""

UNLABELLED = "image"
"""The label of images whose task needs none."""

LARGEST = 1e100
"""The largest absolute value of a number: squares of larger ones, and their sums, may be infinite."""

_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}


def text(value: Any) -> str | None:
    """A cell as text without spaces around it; null for an empty one. Parquet may hold bytes, and whole numbers as
    fractions.

    Raises:
        DataError: bytes that are not UTF-8.
    """
    if is_list(value) or isinstance(value, dict):
        return str(value)
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return None if pd.isna(value) else str(value).strip() or None


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            "a table has a cell of bytes that are not UTF-8", got=value[:40], todo="write the column as text"
        ) from error


def read_labels(table: pd.DataFrame, path: Path, task: Task) -> pd.Series:
    """The labels of a table that was read from `path`; null where there is none.

    Several classes are listed once each, sorted, with `BETWEEN` between them; an image without a class has the empty
    text. A number is written so that Python reads back exactly the same value.

    Raises:
        DataError: the column is missing or not the only one of its kind, or a cell is not a valid label for this task.
    """
    if task == "multilabel":
        found = _several(table, path)
    elif task == "regression":
        found = _numbers(table[_number_column(table, path)], path)
    elif task == "reconstruction" and "label" not in table.columns:
        return pd.Series(UNLABELLED, table.index, dtype=object)
    else:
        _need(table, "label", path, task)
        found = table["label"].map(lambda cell: _one_class(cell, path))
        found = found.fillna(UNLABELLED) if task == "reconstruction" else found
    return found.astype(object)


def refuse_folders(folder: Path, task: Task) -> None:
    """Folders can only express one class per image.

    Raises:
        DataError: `task` asks for something else.
    """
    if task in ("multilabel", "regression"):
        raise DataError(
            f"{folder} has folders of images and no labels.csv, which `head.task: {task}` needs",
            got="one folder per class",
            allowed=f"a table with path and {COLUMNS[task]}",
            todo="write the table, or set `head.task: classification` in params.yaml",
        )


def _need(table: pd.DataFrame, name: str, path: Path, task: Task) -> None:
    if name not in table.columns:
        raise DataError(
            f"{path} lacks the column {name}",
            got=listed(table.columns),
            allowed=f"path, {COLUMNS[task]}, and optionally split, group, weight",
            todo=_remedy(table, task),
        )


def _remedy(table: pd.DataFrame, task: Task) -> str:
    """The most likely mistake is a table for another task."""
    names = [str(name) for name in table.columns]
    if task != "multilabel" and any(name.startswith(ONE_CLASS) for name in names):
        return "if an image has several classes, set `head.task: multilabel` in params.yaml"
    if task != "regression" and TARGET in names:
        return "if labels are numbers, set `head.task: regression` in params.yaml; otherwise rename or add the column"
    return "rename or add the column"


def _one_class(cell: Any, path: Path) -> str | None:
    if is_list(cell):
        raise DataError(
            f"{path}: a label is a list",
            got=", ".join(map(str, cell)),
            todo="if an image has several classes, set `head.task: multilabel` in params.yaml",
        )
    return class_name(text(cell) or "") or None


def is_list(cell: Any) -> bool:
    """A Parquet file may hold one in a cell."""
    return isinstance(cell, list | tuple | np.ndarray)


def _number_column(table: pd.DataFrame, path: Path) -> str:
    if TARGET not in table.columns:
        _need(table, "label", path, "regression")
        return "label"
    if "label" in table.columns:
        raise DataError(
            f"{path} has two columns that may be the number", got=f"label, {TARGET}", todo="rename the other one"
        )
    return TARGET


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    texts = column.map(lambda cell: str(list(cell)) if is_list(cell) else text(cell))
    numbers = texts.map(_number, na_action="ignore")
    wrong = numbers.notna() & ~numbers.map(math.isfinite, na_action="ignore").eq(True)
    refuse_rows(
        path,
        _bad(wrong, texts),
        f"with a {column.name} that is not a number",
        allowed=f"a number such as 12, -0.5 or 1.5e3, with a decimal point, at most {LARGEST:g} away from 0",
        todo="correct or remove the rows; for classes set `head.task: classification`",
    )
    return numbers.map(repr, na_action="ignore")


def _number(written: str) -> float:
    """Infinite if the text is not a number; null would mean that there is no label."""
    try:
        found = math.inf if "_" in written else float(written) + 0.0  # turns minus zero into zero
    except ValueError:
        return math.inf
    return found if abs(found) <= LARGEST else math.inf


def _several(table: pd.DataFrame, path: Path) -> pd.Series:
    columns = [name for name in table.columns if str(name).startswith(ONE_CLASS)]
    if not columns:
        _need(table, "label", path, "multilabel")
        return table["label"].map(lambda cell: _joined(_parts(cell, path)))
    if "label" in table.columns:
        raise DataError(
            f"{path} gives the classes twice",
            got=f"label, {', '.join(columns)}",
            allowed=f"either label or columns `{ONE_CLASS}NAME`",
            todo="remove one of the two",
        )
    names = [_class_of(name, path) for name in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has two columns of one class", got=", ".join(twice), todo="rename one, or remove it from the table"
        )
    has = pd.DataFrame({name: _zeros_and_ones(table[column], path) for name, column in zip(names, columns)})
    return pd.Series([_joined(list(has.columns[row])) for row in has.to_numpy(bool)], index=table.index, dtype=object)


def _parts(cell: Any, path: Path) -> list[str]:
    if not is_list(cell):
        return (text(cell) or "").split(BETWEEN)
    names = [text(name) or "" for name in cell]
    for name in names:
        if BETWEEN in name:
            raise DataError(f"{path}: a class is called {name}", allowed=f"no {BETWEEN} in a name", todo="rename it")
    return names


def _joined(names: list[str]) -> str:
    return BETWEEN.join(sorted({class_name(name) for name in names} - {""}))


def _class_of(column: str, path: Path) -> str:
    name = class_name(column.removeprefix(ONE_CLASS))
    if not name or BETWEEN in name:
        raise DataError(
            f"{path}: a column does not name a class",
            got=column,
            allowed=f"{ONE_CLASS}NAME, without {BETWEEN} in NAME",
            todo="rename the column",
        )
    return name


def _zeros_and_ones(column: pd.Series, path: Path) -> pd.Series:
    texts = column.map(lambda cell: (text(cell) or "").strip().lower())
    wrong = ~texts.isin(_YES | _NO)
    refuse_rows(
        path,
        _bad(wrong, texts),
        f"with neither 0 nor 1 in the column {column.name}",
        allowed="0 (the image does not have this class) or 1 (it does)",
        todo="correct or remove the rows",
    )
    return texts.isin(_YES)


def _bad(wrong: pd.Series, texts: pd.Series) -> list[tuple[int, str]]:
    """The rows, from 1, with their cells."""
    rows = np.flatnonzero(wrong.to_numpy())
    return [(int(row) + 1, texts.iloc[row] or "nothing") for row in rows]
