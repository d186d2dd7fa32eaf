"""The manifest: one row per image, in the order of the paths. Every later stage reads it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyarrow.parquet import read_schema

from ..core.errors import DataError
from ..core.files import whole_file
from .task import BETWEEN as BETWEEN
from .task import GOOD as GOOD
from .task import Task as Task
from .task import names_in as names_in

SPLITS = ("train", "val", "test")

COLUMNS = {
    "image_id": "string",
    "path": "string",
    "label": "string",
    "task": "string",
    "split": "string",
    "group": "string",
    "weight": "float64",
    "width": "int32",
    "height": "int32",
    "mode": "string",
    "channels": "int32",
    "pixels": "string",
    "mask": "string",
    "target": "string",
}
"""Columns and dtypes. `image_id` is the md5 of the file, `path` is relative to data/raw, `label` is a class, several
classes (sorted, separated by `BETWEEN`; none is the empty text) or a number, by `task` (one for all images),
`group` may be null, `mode` is PIL's (or `array`), `channels` as how many every image is read (one number for all),
`pixels` is a hash of the decoded values: the same for a file and its lossless copy, `mask` is the path of an image of
the same size, relative to data/raw, whose pixels above 0 are the defect, or null, and `target` likewise that of
the image that a decoder learns to give."""

LATER = ("mask", "target")
"""Columns that manifests of earlier versions lack; they are null there."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A Parquet file with the same bytes for the same table."""
    with whole_file(path) as part:
        table.to_parquet(part, index=False, engine="pyarrow", compression="zstd")


def read_manifest(folder: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """data/manifest/manifest.parquet, sorted by path; all columns, or those named.

    Raises:
        DataError: the preprocess stage has not run.
    """
    path = folder / "manifest.parquet"
    if not path.is_file():
        raise DataError(f"{path} does not exist", todo="run `graft repro`, which makes it in the stage preprocess")
    stored = read_schema(path).names
    present = None if columns is None else [name for name in columns if name in stored or name not in LATER]
    return with_later(pd.read_parquet(path, engine="pyarrow", columns=present), columns)


def with_later(table: pd.DataFrame, columns: list[str] | None = None) -> pd.DataFrame:
    """The table with the columns of `LATER` that it lacks, of those named."""
    lacking = [name for name in LATER if name not in table and (columns is None or name in columns)]
    return (
        table.assign(**{name: pd.Series(pd.NA, table.index, COLUMNS[name]) for name in lacking}) if lacking else table
    )


def task_of(manifest: pd.DataFrame) -> Task:
    """The task of all its images."""
    return cast(Task, str(manifest["task"].iloc[0]))


def classes(manifest: pd.DataFrame) -> list[str]:
    """The classes, sorted; their order is the order of every matrix's class axis. None for regression; for anomaly
    `GOOD` and the kinds of defect."""
    task = task_of(manifest)
    if task == "regression":
        return []
    labels = manifest["label"].unique()
    return sorted({name for text in labels for name in names_in(text)}) if task == "multilabel" else sorted(labels)


def by_class(manifest: pd.DataFrame) -> pd.DataFrame:
    """One row per class of each image, with that class as `label`; none for images without one, and for regression."""
    task = task_of(manifest)
    if task == "regression":
        return manifest.iloc[:0]
    if task != "multilabel":
        return manifest
    several = manifest.assign(label=manifest["label"].map(names_in).astype(object)).explode("label", ignore_index=True)
    return several.dropna(subset=["label"])


def codes(labels: pd.Series, names: list[str]) -> npt.NDArray[np.int64]:
    """The index of each label in `names`, shape (N,)."""
    return pd.Categorical(labels, categories=names).codes.astype(np.int64)


def counts(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    """class -> split -> number of images that have it."""
    rows = by_class(manifest)
    table = pd.crosstab(rows["label"], rows["split"]).reindex(columns=list(SPLITS), fill_value=0)
    return {str(label): {split: int(row[split]) for split in SPLITS} for label, row in table.iterrows()}
