"""The plan for a table: where its images are, whether they may be taken, and where they go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from graft.tasks.common.data.task import Task
from graft.tasks.common.images.shards import stored
from graft.tasks.preprocess.layouts import FURTHER, SPLIT_NAMES
from graft.tasks.preprocess.learnable import refuse_no_good, refuse_untrained
from graft.tasks.preprocess.scan import given_splits
from graft.tasks.preprocess.tables import Table, refuse_rows

from .planned import Plan, classes_of


def plan_table(file: Path, folder: Path, table: Table, task: Task, outside: bool, joining: bool) -> Plan:
    """The plan for the rows of a table, see `plan_import`; their paths are relative to `folder`.

    Raises:
        DataError: rows name files that are outside `folder`, special or at the place of another; or the splits
            leave nothing to train or to test on.
    """
    rows, notes = _splits_of_paths(table.rows)
    further = {name: _further(file, folder, rows[name], outside, name) for name in FURTHER}
    images = _images(file, folder, list(rows["path"]), outside)
    places = [_inside(name) for name in rows["path"]]
    files: dict[str, Path] = {}
    for place, image in zip(places, images, strict=True):
        files.setdefault(place, image)
    refuse_rows(
        file,
        [(row, places[row - 1]) for row, image in enumerate(images, 1) if files[places[row - 1]] != image],
        "that would be copied to the place of another",
        todo="rename the files",
    )
    if not joining:
        refuse_splits(rows, file, task)
        if task == "anomaly":
            refuse_no_good(rows["label"], str(file))
    others: dict[str, Path] = {}
    for name, (named, places_at) in further.items():
        taken = [(row, place) for row, place in enumerate(places_at, 1) if place is not None and place in files]
        refuse_rows(
            file,
            taken,
            f"with a {name} that would be copied to the place of an image",
            todo=f"rename the {name}s",
        )
        others |= named
        rows = rows.assign(**{name: pd.Series(places_at, rows.index, dtype=object)})
    return Plan("table", files | others, folder, rows.assign(path=places), task=task, notes=(*table.notes, *notes))


def _further(
    file: Path, folder: Path, named: pd.Series, outside: bool, column: str
) -> tuple[dict[str, Path], list[str | None]]:
    """(place -> the file that a column of `FURTHER` names, the place of each row's or None)."""
    own = named.notna().to_numpy()
    places = [_inside(mask) if has else None for mask, has in zip(named, own, strict=True)]
    found = iter(_images(file, folder, list(named[own]), outside, rows=list(np.flatnonzero(own) + 1)))
    masks: dict[str, Path] = {}
    twice = []
    for row, place in enumerate(places, 1):
        if place is not None:
            mask = next(found)
            if masks.setdefault(place, mask) != mask:
                twice.append((row, place))
    what = f"with a {column} that would be copied to the place of another"
    refuse_rows(file, twice, what, todo=f"rename the {column}s")
    return masks, places


def refuse_splits(rows: pd.DataFrame, source: Path, task: Task) -> None:
    """Raises:
    DataError: the given splits leave nothing to train or to test on, or a class without a training image.
    """
    rows = given_splits(rows)
    if task in ("classification", "multilabel"):
        trained = set(classes_of(rows[rows["split"].isna() | (rows["split"] == "train")], task))
        refuse_untrained(sorted({*classes_of(rows, task)} - trained), str(source))


def _splits_of_paths(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Where no row gives a split, and all images lie in folders of splits, these are the splits."""
    tops = [path.split("/")[0].lower() if "/" in path else "" for path in rows["path"]]
    splits = [SPLIT_NAMES.get(top) for top in tops]
    if not len(rows) or rows["split"].notna().any() or None in splits or len({*splits}) < 2:
        return rows, ()
    return rows.assign(split=pd.Series(splits, rows.index, dtype=object)), ("splits: the first folder of each path",)


def _images(table: Path, folder: Path, names: list[str], outside: bool, rows: list[int] | None = None) -> list[Path]:
    """The files of all rows, or of these, with all links resolved."""
    numbers = rows or range(1, len(names) + 1)
    real = Path(os.path.realpath(folder))
    images = [Path(os.path.realpath(folder / name)) for name in names]
    refuse_rows(
        table,
        [] if outside else list(_outside(real, numbers, names, images)),
        "that name files outside its folder",
        allowed=f"files below {real}",
        todo="correct the rows, or `--allow-outside` if you trust the table",
    )
    special = [(row, name) for row, name, image in zip(numbers, names, images) if not _is_regular(image)]
    refuse_rows(table, special, "of folders, FIFOs, sockets or devices", allowed="files", todo="correct the rows")
    return images


def _outside(real: Path, rows: Iterable[int], names: list[str], images: list[Path]) -> Iterator[tuple[int, str]]:
    for row, name, image in zip(rows, names, images, strict=True):
        if not image.is_relative_to(real):
            yield row, name + ("" if image == real / name else f", which is {image}")


def _is_regular(image: Path) -> bool:
    try:
        return stat.S_ISREG(image.stat().st_mode)
    except OSError:
        return stored(image) is not None


def _inside(name: str) -> str:
    """The place below data/raw for a path in a table, which may be absolute or contain `..`."""
    parts = [part for part in PurePosixPath(Path(name).as_posix()).parts if part not in ("/", "..", ".")]
    return "images/" + "/".join(part.replace(":", "") for part in parts)
