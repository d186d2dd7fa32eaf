"""What the stage reports about its images."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ..common.core.paths import Paths
from ..common.core.record import DatasetRecord, Record
from ..common.data.manifest import SPLITS, by_class, counts, task_of
from ..common.images.reading import NAME as READING

INTERVALS = 20
"""How many intervals of equal width the plot sorts numbers into."""


def balance(manifest: pd.DataFrame) -> pd.DataFrame:
    """Columns `label`, `split`, `images`; numbers are counted in intervals, whose names sort as the numbers do."""
    rows = by_class(manifest)
    if task_of(manifest) == "regression":
        numbers = manifest["label"].astype(float)
        edges = np.linspace(numbers.min(), numbers.max(), INTERVALS + 1)
        digits = 4 if edges[-1] - edges[0] > 1e-2 * np.abs(edges).max() else 9
        names = [f"{n:02}: {edges[n]:.{digits}g} to {edges[n + 1]:.{digits}g}" for n in range(INTERVALS)]
        places = np.searchsorted(edges[1:-1], numbers, side="left")
        rows = manifest.assign(label=[names[n] for n in places])
    return rows.groupby(["label", "split"], sort=True).size().rename("images").reset_index()


def record(manifest: pd.DataFrame, rejected: pd.DataFrame, paths: Paths) -> Record:
    """The metrics, files and data set of a run."""
    reasons = Counter(reason.split(":")[0] for reason in rejected["reason"])
    labels = _labels(manifest)
    metrics: dict[str, Any] = {
        "task": task_of(manifest),
        "images": len(manifest),
        **{name: len(value) if name == "classes" else value for name, value in labels.items()},
        **({"masks": int(manifest["mask"].notna().sum())} if task_of(manifest) == "anomaly" else {}),
        "rejected": len(rejected),
        "duplicates": int(manifest["pixels"].duplicated().sum()),
        "by_split": {split: int((manifest["split"] == split).sum()) for split in SPLITS},
        "by_reason": dict(sorted(reasons.items())),
    }
    return Record(
        metrics=metrics,
        files=[
            paths.manifest / "manifest.parquet",
            paths.manifest / "rejected.parquet",
            paths.manifest / READING,
            paths.plots("preprocess") / "classes.csv",
        ],
        dataset=DatasetRecord("raw", {"images": len(manifest), **labels}),
    )


def _labels(manifest: pd.DataFrame) -> dict[str, Any]:
    """`classes` (name -> images), or the range and mean of the numbers."""
    if task_of(manifest) != "regression":
        return {"classes": {name: sum(count.values()) for name, count in counts(manifest).items()}}
    numbers = manifest["label"].astype(float)
    return {f"target_{name}": float(getattr(numbers, name)()) for name in ("min", "mean", "max")}
