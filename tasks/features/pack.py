"""The files of the feature set. N images, V augmented views, D features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..common.data.feature_set import PART_COLUMN, RowFile
from ..common.data.manifest import write_table
from ..common.data.parts import PartOf, parts_of, views_part
from ..common.images.shards import shards_of
from .views import Items


def create_files(
    folder: Path, manifest: pd.DataFrame, items: Items, dimension: int, dtype: str, raw: Path
) -> tuple[RowFile, RowFile]:
    """Writes index.parquet, and makes room for the features (N, D) and for those of the views (V, D); many are in
    parts."""
    features, views = folder / "features.npy", folder / "views.npy"
    shape, views_shape = (items.images, dimension), (items.views, dimension)
    part_N = _parts(manifest, raw)
    if part_N is None:
        write_table(manifest, folder / "index.parquet")
        return RowFile(features, shape, dtype), RowFile(views, views_shape, dtype)
    write_table(manifest.assign(**{PART_COLUMN: part_N}), folder / "index.parquet")
    train, parts = np.flatnonzero(manifest["split"] == "train"), int(part_N.max()) + 1
    of_views = views_part(part_N, train, items.views // max(len(train), 1))
    return RowFile(features, shape, dtype, part_N, parts), RowFile(views, views_shape, dtype, of_views, parts)


def _parts(manifest: pd.DataFrame, raw: Path) -> PartOf | None:
    shards = shards_of(raw)
    group_N = np.zeros(len(manifest), np.int64) if shards is None else shards.numbers(list(manifest["path"]))
    return parts_of(group_N)
