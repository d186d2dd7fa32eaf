"""The files of the feature set. N images, V augmented views, D features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..common.data.feature_set import PART_COLUMN, RowFile
from ..common.data.manifest import write_table
from ..common.data.parts import parts_of, views_part
from .views import Items


def create_files(
    folder: Path, manifest: pd.DataFrame, items: Items, dimension: int, dtype: str
) -> tuple[RowFile, RowFile]:
    """Writes index.parquet, and makes room for the features (N, D) and for those of the views (V, D); many are in
    parts."""
    files, shapes = (
        (folder / "features.npy", folder / "views.npy"),
        ((items.images, dimension), (items.views, dimension)),
    )
    part_N = parts_of(np.zeros(len(manifest), np.int8))
    if part_N is None:
        write_table(manifest, folder / "index.parquet")
        return RowFile(files[0], shapes[0], dtype), RowFile(files[1], shapes[1], dtype)
    write_table(manifest.assign(**{PART_COLUMN: part_N}), folder / "index.parquet")
    train, parts = np.flatnonzero(manifest["split"] == "train"), int(part_N.max()) + 1
    of_views = views_part(part_N, train, items.views // max(len(train), 1))
    return RowFile(files[0], shapes[0], dtype, part_N, parts), RowFile(files[1], shapes[1], dtype, of_views, parts)
