"""Tables as people have them: any separator, encoding and common names of columns. What was recognised is told."""

from __future__ import annotations

import codecs
import csv
import io
import json
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException, parquet

from ..common.core.errors import DataError
from .layouts import SPLIT_NAMES, TARGET

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

NAMED = 20
"""How many bad rows a message names."""

NAMES = {
    "path": ("path", "filename", "filenames", "filepath", "filepaths", "file", "image", "imagepath", "imagename",
             "imagefile", "imagefilename", "img", "imgpath", "imgname", "relativepath"),
    "label": ("label", "labels", "class", "classname", "classlabel", "labelname", "category", "categoryname"),
    "split": ("split", "subset", "partition", "dataset"),
    "group": ("group",),
    "weight": ("weight",),
}  # fmt: skip
"""Column -> the names by which it is recognised, in small letters and without spaces, hyphens and underscores."""


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        rows: the cells; text, if the file is text. Recognised columns have Graft's names.
        notes: what was recognised, for the user to check.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()


def load_table(path: Path) -> Table:
    """Reads a table; its suffix says whether it is CSV, JSON lines or Parquet.

    Raises:
        DataError: it cannot be read, or rows have more cells than the header.
    """
    try:
        return parse_table(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a table", got=error.strerror, todo="make it readable") from error


def parse_table(content: bytes, path: Path) -> Table:
    """A table from the bytes of `path`, see `load_table`."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            rows, notes = parquet.read_table(io.BytesIO(content)).to_pandas(ignore_metadata=True), list[str]()
        else:
            text, encoding = _decoded(content)
            notes = [encoding] if encoding else []
            rows = _json_rows(text, path) if suffix == ".jsonl" else _csv_rows(text, path, notes)
    except (OSError, ValueError, csv.Error, ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as a table", got=str(error), allowed="CSV, JSON lines or Parquet"
        ) from error
    renamed = _recognised(rows, path)
    notes += [f"column `{old}` taken as {new}" for old, new in renamed.items()]
    return Table(rows.rename(columns=renamed), tuple(notes))


def _decoded(content: bytes) -> tuple[str, str]:
    """The text, and how it was encoded if that is not plain UTF-8."""
    for mark, encoding, name in (
        (codecs.BOM_UTF8, "utf-8-sig", ""),
        (codecs.BOM_UTF16_LE, "utf-16", "encoding: UTF-16"),
        (codecs.BOM_UTF16_BE, "utf-16", "encoding: UTF-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding), name
    if b"\0" in content:
        raise ValueError("it is not a text")
    try:
        return content.decode(), ""
    except UnicodeDecodeError:
        try:
            return content.decode("cp1252"), "encoding: not UTF-8, read as Latin-1 (Windows-1252)"
        except UnicodeDecodeError:
            return content.decode("latin-1"), "encoding: not UTF-8, read as Latin-1"


def _csv_rows(text: str, path: Path, notes: list[str]) -> pd.DataFrame:
    told = re.match(r"sep=(.)\r?\n", text)  # Excel's own line
    text = text[told.end() :] if told else text
    separator = told[1] if told else _separator(text)
    if separator != ",":
        notes.append(f"separator: {SEPARATORS.get(separator, separator)}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = [[cell.strip() for cell in row] for row in reader if any(row)]
    if not rows:
        raise ValueError("it is empty")
    header, cells = rows[0], rows[1:]
    bad = [(number, f"{len(row)} cells") for number, row in enumerate(cells, 1) if any(row[len(header) :])]
    refuse_rows(
        path,
        bad,
        f"with more cells than the {len(header)} of the header",
        todo='put cells that contain the separator in quotes: "a, b.png"',
    )
    width = len(header)
    return pd.DataFrame([(row + [""] * width)[:width] for row in cells], columns=header, dtype=object)


def _separator(text: str) -> str:
    """The one that gives the most columns with known names, then the most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def score(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        return sum(_column(cell) != "" or cell.strip().lower() == TARGET for cell in cells), len(cells)

    return max(SEPARATORS, key=score)


def _json_rows(text: str, path: Path) -> pd.DataFrame:
    rows, bad = [], []
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append((number, line[:60]))
    refuse_rows(path, bad, "that are no JSON objects", todo="write one JSON object a line")
    return pd.DataFrame(rows, dtype=object)


def _key(name: object) -> str:
    return re.sub(r"[\s_-]", "", str(name)).lower()


def _column(name: object) -> str:
    """Graft's name of a column; empty for other columns."""
    return next((column for column, names in NAMES.items() if _key(name) in names), "")


def _recognised(rows: pd.DataFrame, path: Path) -> dict[str, str]:
    """Column -> Graft's name, where they differ.

    Raises:
        DataError: several columns may be the one, or two have the same name.
    """
    renamed = {}
    for column in NAMES:
        found = [str(name) for name in rows.columns if name == column] or [
            str(name) for name in rows.columns if _column(name) == column and _fits(rows, name, column)
        ]
        if len(found) > 1:
            raise DataError(
                f"{path} has several columns that may be the {column}",
                got=", ".join(found),
                todo=f"rename the right one to `{column}`, or remove the others",
            )
        if found and found != [column] and not (column == "label" and TARGET in rows.columns):
            renamed[found[0]] = column
    return renamed


def _fits(rows: pd.DataFrame, name: object, column: str) -> bool:
    """Only a column of names of splits is one, whatever it is called."""
    if column != "split":
        return True
    return {str(cell).lower() for cell in rows[name]} <= {"", *SPLIT_NAMES}


def refuse_rows(path: Path, bad: Iterable[tuple[int, str]], what: str, *, allowed: str = "", todo: str) -> None:
    """Names all bad rows of a table; rows count from 1, without the header.

    Raises:
        DataError: there are any.
    """
    bad = sorted(bad)
    if bad:
        named = "; ".join(f"row {number}: {got}" for number, got in bad[:NAMED])
        more = f"; and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
        rows = f"{len(bad):,} rows" if len(bad) > 1 else "a row"
        raise DataError(f"{path} has {rows} {what}", got=named + more, allowed=allowed, todo=todo)


def spellings(cell: Any) -> list[str]:
    """The paths that a cell may mean, the likeliest first: without spaces around it, `./` or backslashes, and in the
    normal form of another system."""
    written = str(cell).strip()
    if "\\" not in written and written.isascii():
        return [posixpath.normpath(written)] if written else []
    variants = [written, written.replace("\\", "/")]
    variants += [unicodedata.normalize(form, variants[1]) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(posixpath.normpath(variant) for variant in variants if variant))
