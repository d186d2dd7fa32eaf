"""What `graft drift` and `graft label add` are given: a folder, that of a server's log, or a table of paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.words import listed
from graft.tasks.common.images.shards import is_stored
from graft.tasks.preprocess.tables import SUFFIXES, load_table

from .server.kept import kept_at_random
from .sources import images_below, spelling

NAMED = 10
"""Rows that an error names."""


def list_source(source: Path) -> pd.DataFrame:
    """Columns `name`, `file` and `group` (or null): the files below a folder that may be images, a table's rows, or the
    pictures that `graft serve` kept at random.

    Raises:
        DataError: it is none of these, or the table has no column `path`, or a row has no path or that of a missing
            file.
    """
    source = kept_at_random(source)
    inside = images_below(source)
    if inside is not None:
        folder, names = inside
        return pd.DataFrame({"name": names, "file": [folder / name for name in names], "group": None})
    table = _read_table(source)
    if "path" not in table:
        raise DataError(
            f"{source} has no column `path`",
            got=listed(table.columns),
            allowed="the column path; optionally group, for images that belong together",
        )
    empty = np.flatnonzero(table["path"].isna() | (table["path"].astype(str).str.strip() == "")) + 1
    if len(empty):
        raise DataError(
            f"{source} has rows without a path",
            got=f"{len(empty)} of {len(table)}: row {', '.join(map(str, empty[:NAMED]))}"
            + (", ..." if len(empty) > NAMED else ""),
            allowed="a path in every row; rows are counted from 1, without the header",
            todo="fill in the paths, or remove the rows",
        )
    files = [source.parent / spelling(name, source.parent) for name in table["path"]]
    absent = [file for file in files if not is_stored(file)]
    if absent:
        raise DataError(
            f"{source} names files that do not exist",
            got=f"{len(absent)} of {len(files)}, first {absent[0]}",
            todo="correct the rows; paths are relative to the table's folder",
        )
    group = table["group"].replace("", None) if "group" in table else None
    return pd.DataFrame({"name": table["path"].astype(str), "file": files, "group": group})


def _read_table(source: Path) -> pd.DataFrame:
    if not source.is_file() or source.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{source} is neither a folder nor a table",
            allowed=f"a folder of images, or a table of their paths ({', '.join(SUFFIXES)})",
            todo="correct the path",
        )
    return load_table(source).rows
