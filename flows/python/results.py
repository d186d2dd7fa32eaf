"""What the stages have computed: features with their labels, and the report on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.data.feature_set import FeatureSet, Rows
from graft.tasks.common.data.manifest import SPLITS
from graft.tasks.common.data.parts import Stored

from ..maintenance.summary import summarise
from ..maintenance.summary_text import rows_of
from . import display

PICTURES = ("confusion.png", "scatter.png", "reliability.png", "scores.png", "missed.png", "found.png")
"""The pictures of the report that a notebook shows."""


@dataclass(frozen=True, repr=False)
class Features:
    """The features of images, and their labels. N images, D features, K classes.

    Attributes:
        values: (N, D), float32, or float16 with `features.dtype: float16`; row n belongs to row n of `table`. Of all
            images a read-only memory map, which takes no memory until you read it; of a split an array in memory.
        labels: for one class per image int64 codes (N,), whose names are in `classes`; for several float64 zeros
            and ones (N, K); for numbers float64 (N,).
        table: one row per image, with `path` (below data/raw), `label`, `split`, `group`, `weight` and `image_id` (the
            MD5 of the file).
        classes: the K names, sorted; empty for numbers.
        task: `classification`, `multilabel` or `regression`.
    """

    values: Stored
    labels: npt.NDArray[Any]
    table: pd.DataFrame
    classes: list[str]
    task: str

    @classmethod
    def of(cls, pack: FeatureSet, split: str | None) -> Features:
        """Of all images of a feature set, or of those of one split."""
        everything: Rows = np.arange(len(pack.index))
        if split is not None and split not in SPLITS:
            raise GraftError("no such split", got=split, allowed=", ".join(SPLITS), todo="name one, or none for all")
        rows = everything if split is None else pack.rows(split)
        table = pack.index.drop(columns=["task", "pixels"]).iloc[rows].reset_index(drop=True)
        values = pack.stored_ND if split is None else pack.stored_ND[rows]
        return cls(values, pack.targets(rows), table, pack.classes, pack.task)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        count, dimension = self.values.shape
        return f"Features({count:,} images x {dimension:,} {self.values.dtype}, {self._labels()})"

    def _labels(self) -> str:
        return f"{len(self.classes):,} classes" if self.classes else "numbers"

    def _repr_html_(self) -> str:
        counts = self.table["split"].value_counts()
        rows = [(split, f"{counts[split]:,}") for split in SPLITS if split in counts]
        return display.table(repr(self), ["split", "images"], rows)


@dataclass(frozen=True, repr=False)
class Report:
    """The results of the last run.

    Attributes:
        summary: what `graft summary --json` prints.
        metrics: stage -> the metrics that it has written.
        page: the report as an HTML page, with its pictures in it.
    """

    root: Path
    summary: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    page: Path

    @classmethod
    def of(cls, root: Path) -> Report:
        """Of a project whose pipeline has run to its end."""
        paths = Paths(root)
        metrics = {stage: read_json(paths.metrics(stage)) for stage in STAGES if paths.metrics(stage).is_file()}
        return cls(root, summarise(root), metrics, paths.report / "index.html")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per test image: `path`, the true label and what the model predicts."""
        return pd.read_parquet(Paths(self.root).report / "predictions.parquet")

    def __repr__(self) -> str:
        return "\n".join(f"{name:<16} {text}" for name, text in rows_of(self.summary))

    def _repr_html_(self) -> str:
        pictures = display.pictures_in(Paths(self.root).report, PICTURES)
        return display.table("Results of the last run", [], rows_of(self.summary), pictures)
