"""The features stage's pack: what the stages after it read instead of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import DataError
from .files import read_json
from .manifest import classes, codes


@dataclass(frozen=True)
class Pack:
    """Features and what they are of.

    Attributes:
        features_ND: float32, memory-mapped, in the manifest's order.
        index: columns `image_id`, `path`, `label`, `split`, `group`, `weight`, one row an image.
        fingerprint: what computed the features.
    """

    features_ND: npt.NDArray[np.float32]
    index: pd.DataFrame
    fingerprint: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return classes(self.index)

    def rows(self, *splits: str) -> npt.NDArray[np.int64]:
        """The rows of the named splits, in order."""
        return np.flatnonzero(self.index["split"].isin(splits))

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Class codes of the given rows, shape (len(rows),)."""
        return codes(self.index["label"].iloc[rows], self.classes)

    def weights(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return self.index["weight"].to_numpy(np.float64)[rows]


def read_pack(folder: Path) -> Pack:
    """data/features.

    Raises:
        DataError: the features stage has not run.
    """
    if not (folder / "fingerprint.json").is_file():
        raise DataError(f"{folder} holds no features", todo="run `dvc repro`, which makes them in the stage features")
    return Pack(
        features_ND=np.load(folder / "features.npy", mmap_mode="r"),
        index=pd.read_parquet(folder / "index.parquet"),
        fingerprint=read_json(folder / "fingerprint.json"),
    )
