"""What an import will do, and how it tells so: classes, splits, what is left out and what may be a mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.manifest import SPLITS, names_in
from graft.tasks.common.data.task import GOOD, Task
from graft.tasks.preprocess.class_names import doubtful_names
from graft.tasks.preprocess.layouts import FURTHER, hidden
from graft.tasks.preprocess.learnable import LEAST_GOOD
from graft.tasks.preprocess.tables import SUFFIXES as TABLES
from graft.tasks.preprocess.walk import Listing

LOOSE = "not in a folder of a class"
NO_IMAGE = "not an image, by the suffix"
NO_ROW = "no row in the table"
NO_OWNER = "a mask that belongs to no image"
SYSTEM = "hidden file, or left by a system"
REPEATED = "link to a file that is taken anyway"

EXAMPLES = 3
"""How many files of each reason are named."""

FEW = 3
"""A class with fewer images cannot have one in each split."""


@dataclass
class LeftOut:
    """Reason -> the files that are not taken."""

    names: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, listing: Listing) -> LeftOut:
        """What every import leaves out."""
        left = cls()
        left.add(SYSTEM, [name for name in (*listing.files, *listing.left_out) if hidden(name)])
        left.add(REPEATED, listing.repeated)
        return left

    def add(self, reason: str, names: Iterable[str]) -> None:
        if added := [*self.names.get(reason, []), *names]:
            self.names[reason] = added

    def summary(self) -> dict[str, dict[str, object]]:
        return {reason: {"files": len(names), "such_as": names[:EXAMPLES]} for reason, names in self.names.items()}


class Content(Protocol):
    """Images that are in no files of their own, but in tar files or tables."""

    def fill(self, folder: Path, plan: Plan, size_mb: int, *, link: bool) -> Plan:
        """Brings them into shards of a folder, beside those that are there; returns the plan as it was carried out.

        Raises:
            DataError: the content is damaged, or the folder has another image of the same name.
        """
        ...

    def shards(self, size_mb: int) -> int:
        """How many shards they will have."""
        ...


@dataclass(frozen=True)
class Plan:
    """What an import will do.

    Attributes:
        form: `classes`, `splits` or `table`.
        files: the place below data/raw -> the file to take, by a path without links.
        source: the folder that holds `files`.
        rows: `label`, `split` and `mask` of each image, or null; for the form `table` all rows of labels.csv.
        left_out: the files of the source that are not taken.
        notes: what was recognised, for the user to check.
        warnings: what may be a mistake.
        task: what the labels are.
        joining: the images are added to others, so few of them are no reason for a warning.
        content: brings the images of `files`, if they are not files of their own.
    """

    form: str
    files: dict[str, Path]
    source: Path
    rows: pd.DataFrame
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    task: Task = "classification"
    joining: bool = False
    content: Content | None = None

    @property
    def table(self) -> pd.DataFrame | None:
        """The rows of labels.csv, for the form `table`; without columns of masks and targets if there are none."""
        if self.form != "table":
            return None
        return self.rows.drop(columns=[name for name in FURTHER if self.rows[name].isna().all()])

    def summary(self) -> dict[str, object]:
        masks = int(self.rows["mask"].nunique())
        told: dict[str, object] = {"form": self.form, "files": len(self.files), **self._labels()}
        told |= {"masks": masks} if masks else {}
        more = {"notes": list(self.notes), "left_out": self.left_out.summary(), "warnings": self.all_warnings()}
        return told | {key: value for key, value in more.items() if value}

    def _labels(self) -> dict[str, object]:
        if self.task == "regression":
            numbers = self.rows["label"].astype(float)
            return {"least": min(numbers, default=None), "most": max(numbers, default=None), **self._splits()}
        return {"classes": dict(sorted(self.classes().items())), **self._splits()}

    def classes(self) -> Counter[str]:
        """Class -> number of images."""
        return Counter(classes_of(self.rows, self.task))

    def _splits(self) -> dict[str, object]:
        """Split -> class -> number of images, for splits that the source gives; without classes, only the number."""
        given = {split: self.rows[self.rows["split"] == split] for split in SPLITS}
        if self.task == "regression":
            counts: dict[str, object] = {split: len(rows) for split, rows in given.items() if len(rows)}
        else:
            counts = {
                split: dict(sorted(Counter(classes_of(rows, self.task)).items()))
                for split, rows in given.items()
                if len(rows)
            }
        return {"splits": counts} if counts else {}

    def all_warnings(self) -> list[str]:
        loose = self.left_out.names.get(LOOSE, [])
        told = [f"images that are in no folder of a class: {_some(loose)}"] if loose else []
        if self.task not in ("regression", "reconstruction"):
            told += self._doubts()
        return [*self.warnings, *told]

    def _doubts(self) -> list[str]:
        counts = self.classes()
        if self.joining:
            return doubtful_names(counts)
        if self.task == "anomaly":
            return [*_doubts_of_good(counts[GOOD]), *doubtful_names(counts)]
        few = sorted(name for name, count in counts.items() if count < FEW)
        told = [f"classes with fewer than {FEW} images, so not one for each split: {_some(few)}"] if few else []
        if len(counts) == 1:
            told.append(f"all images are of one class, {next(iter(counts))}: a classifier needs two{self._tables()}")
        return [*told, *doubtful_names(counts)]

    def _tables(self) -> str:
        tables = [name for name in self.left_out.names.get(NO_IMAGE, []) if name.lower().endswith(TABLES)]
        return f"; if a table has the labels, import the table itself: {_some(tables)}" if tables else ""


def _doubts_of_good(count: int) -> list[str]:
    return [f"{count} {GOOD} images: at least {LEAST_GOOD} outside the test are needed"] if count < LEAST_GOOD else []


def another_image(name: str) -> DataError:
    return DataError("data/raw has another image of this name", got=name, todo="rename the new one")


def classes_of(rows: pd.DataFrame, task: Task) -> list[str]:
    """The class of each image, or all classes of each."""
    if task != "multilabel":
        return list(rows["label"])
    return [name for label in rows["label"] for name in names_in(label)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
