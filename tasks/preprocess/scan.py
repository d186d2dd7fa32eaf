"""The files of data/raw and what the data state about them: label, split, group, weight, mask.

data/raw has one of three layouts: one folder per class; the same under train/, val/ and test/ (or two of them); a table
`labels.csv` with `path`, `label` and optionally `split`, `group`, `weight`, `mask`. Several classes per image, and
numbers, need the table. Beside the folders, `ground_truth/` may hold masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..common.core.errors import DataError
from ..common.core.progress import say
from ..common.data.task import Task
from ..common.images.shards import INDEX, TAR
from .image_table import COLUMNS, Files, read_table
from .labels import UNLABELLED, refuse_folders
from .layouts import FURTHER, Layout, layout_of, refuse_masks, refuse_mixed
from .layouts import SPLIT_NAMES as SPLIT_NAMES
from .layouts import TABLE as TABLE
from .layouts import hidden as hidden
from .mask_names import masks_in
from .walk import list_files as list_files


def scan(raw: Path, task: Task = "classification") -> pd.DataFrame:
    """Every file below `raw` that could be an image, sorted by path.

    Returns:
        Columns `path` (relative, with slashes), `label` (see `read_labels`), `split` (given by the data, or null),
        `group` (or null), `weight`, `mask` (the path of one, or null; masks have no rows), `fault`. The label is null
        for a file without one; `fault` says why a file is not an image of the data, and is mostly empty.

    Raises:
        DataError: there are no files; the table lacks a column, or names a file twice or one that does not exist; split
            folders have no training images; there is no table, but the labels are not single classes; there are masks,
            which the task does not use; an entry cannot be listed (see `list_files`); there are tars without an index.
    """
    files = list_files(raw)
    if not files:
        raise DataError(f"{raw} contains no files", todo="run `graft import PATH`, or `graft sample` for an example")
    _refuse_half_shards(raw, files)
    if TABLE in files:
        return given_splits(_from_table(raw, files, task))
    layout = layout_of(files)
    refuse_masks(raw, layout, task)
    refuse_folders(raw, task)
    refuse_mixed(raw, layout)
    if layout.wrapper:
        say(f"preprocess: {layout.wrapper} is the only folder; the classes are the folders in it")
    table = _from_folders(files, layout)
    if task == "reconstruction":
        table["label"] = table["label"].fillna(UNLABELLED)
    return given_splits(table)


def _refuse_half_shards(raw: Path, files: list[str]) -> None:
    """Raises:
    DataError: there are tars that are no shards, or the table is in one.
    """
    other = [name for name in files if name.endswith((TAR, INDEX)) and not hidden(name)]
    if other:
        raise DataError(
            f"{raw} has tar files that are no shards",
            got=f"{len(other):,}: {', '.join(other[:3])}{', ...' if len(other) > 3 else ''}",
            allowed=f"images, and shards: NAME{TAR} with NAME{INDEX} beside it, directly in {raw.name}",
            todo="take the tars out, and bring their images in with `graft import`",
        )
    if TABLE in files and not (raw / TABLE).is_file():
        raise DataError(
            f"{TABLE} is in a shard of {raw}",
            allowed=f"a file beside the shards: {raw / TABLE}",
            todo="import the images again (`graft import`), which puts it there",
        )


class Listed(Files):
    """Files by their names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _from_folders(files: list[str], layout: Layout) -> pd.DataFrame:
    masks = masks_in(files, layout)
    taken = set(masks.of.values())
    rows = [
        (file, layout.label(file), layout.split(file), masks.of.get(file), masks.left.get(file, ""))
        for file in files
        if file not in taken
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split", "mask", "fault"], dtype=object)
    return table.assign(group=None, weight=1.0, target=None)[[*COLUMNS, "fault"]]


def _from_table(raw: Path, files: list[str], task: Task) -> pd.DataFrame:
    table = read_table(raw / TABLE, task, Listed(files)).rows
    named = {*table["path"], *(name for column in FURTHER for name in table[column].dropna())}
    unnamed = [file for file in files if file != TABLE and file not in named]
    rest = pd.DataFrame({**dict.fromkeys(COLUMNS), "path": unnamed, "weight": 1.0}, dtype=object)
    parts = [part for part in (table, rest) if len(part)]
    whole = pd.concat(parts).sort_values("path", ignore_index=True)[COLUMNS].astype({"weight": float})
    return whole.assign(fault="")


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
