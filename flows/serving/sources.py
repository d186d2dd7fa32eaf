"""What `graft predict` is given: files, folders, tables, patterns, or a list on standard input."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.shards import is_stored
from graft.tasks.preprocess.layouts import hidden, layout_of
from graft.tasks.preprocess.tables import SUFFIXES, load_table, spellings
from graft.tasks.preprocess.walk import named_by

LIST = "-"
"""Stands for a list of files on standard input."""


@dataclass(frozen=True)
class Named:
    """A file and the name under which it was given."""

    name: str
    file: Path


def files_in(paths: Sequence[str], lines: TextIO) -> list[Named]:
    """The files to predict, in the order given; a folder gives all its files that are neither hidden nor masks.

    A file that does not exist is among them, and reported when it is read, so that it does not stop the others.

    Args:
        paths: files; folders; shards; tables with a column `path`, relative to the table; patterns such as
            `day/*.jpg`; `-`.
        lines: standard input, with a path per line.

    Raises:
        DataError: there are no files, or a table cannot be read.
    """
    found = [named for path in paths for named in _expanded(path, lines)]
    if not found:
        raise DataError(
            "there are no images to predict",
            got=", ".join(paths),
            allowed="image files, folders of them, tables with a column `path`, patterns, or - for a list",
            todo="name an image, or a folder with files that are not hidden",
        )
    return found


def images_below(path: Path) -> tuple[Path, list[str]] | None:
    """A folder and the names of all files that may be images, of a folder or a shard: neither hidden nor, in the layout
    of MVTec AD, masks of defects. None for any other path.

    Raises:
        DataError: an entry cannot be listed, or a shard is damaged.
    """
    found = named_by(path)
    if found is None:
        return None
    names = [name for name in found[1] if not hidden(name)]
    layout = layout_of(names)
    return found[0], [name for name in names if not layout.is_mask(name)]


def _expanded(path: str, lines: TextIO) -> Iterable[Named]:
    given = Path(path)
    if path == LIST:
        return _listed(lines)
    inside = images_below(given)
    if inside is not None:
        folder, names = inside
        return (Named(str(folder / name), folder / name) for name in names)
    if given.suffix.lower() in SUFFIXES and given.is_file():
        return _in_table(given)
    if not given.exists() and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        return (Named(name, Path(name)) for name in matches if Path(name).is_file())
    return [Named(path, given)]


def _listed(lines: TextIO) -> Iterator[Named]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name:
            yield Named(name, Path(name))


def _in_table(table: Path) -> list[Named]:
    rows = load_table(table).rows
    if "path" not in rows:
        raise DataError(
            f"{table} has no column `path`",
            got=", ".join(map(str, rows.columns)),
            allowed="a column path, file, filename or image",
            todo="name the column with the files `path`; they are relative to the table's folder",
        )
    return [Named(str(cell), table.parent / spelling(cell, table.parent)) for cell in rows["path"].dropna()]


def spelling(cell: object, folder: Path) -> str:
    """The path in a table's cell, in the spelling of a file that exists below the folder."""
    variants = spellings(cell)
    return next((variant for variant in variants if is_stored(folder / variant)), variants[0])
