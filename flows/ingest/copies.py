"""`graft group-copies`: near-copies of one picture into one split, by data/pins.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import GOOD, SPLITS, read_manifest, task_of
from graft.tasks.preprocess.pins import GROUP, read_pins, with_rows
from graft.tasks.preprocess.scan import scan

from ..runtime.params import load_params

BOTH = ["path", "split", "other_path", "other_split"]


def group_copies(root: Path) -> dict[str, Any]:
    """Moves each validation and test image that is also in an earlier split, by the audit, to that split.

    Returns:
        `from_val` and `from_test`, how many images move; `stay`, how many cannot, because the data give their split.

    Raises:
        DataError: the audit has not run, or none of the images can move.
    """
    paths = Paths(root)
    params = load_params(paths.params).preprocess
    images = _images(paths)
    wanted = _earliest(_leaks(paths, images), images)
    wanted = wanted.mask(images["untrained"] & wanted.eq("train"), images["split"])
    moved = images[wanted.ne(images["split"]) & ~images["given"]]
    stay = int((wanted.ne(images["split"]) & images["given"]).sum())
    if stay and moved.empty:
        raise DataError(
            f"the data give the splits of {stay:,} copies, so Graft moves none",
            todo=f"see {paths.relative(paths.audit / 'leaks.parquet')}; move or remove them, then import again",
        )
    rows = dict(zip(moved["key"], wanted[moved.index]))
    with whole_file(paths.pins) as part:
        with_rows(read_pins(paths.pins), params.seed, rows).to_csv(part, index=False)
    counts = images.loc[images["key"].isin(rows), "split"].value_counts()
    return {**{f"from_{split}": int(counts.get(split, 0)) for split in ("val", "test")}, "stay": stay}


def _images(paths: Paths) -> pd.DataFrame:
    """`path`, `split`, `key` (its unit in the pins), `given`, whether the data give its split, and `untrained`, whether
    its unit has a defect and never trains."""
    found = read_manifest(paths.manifest, ["path", "label", "split", "group", "pixels", "task"])
    keys = (GROUP + found["group"].astype("string")).fillna("pixels:" + found["pixels"].astype("string"))
    brought = scan(paths.raw, task_of(found)).dropna(subset=["split"])["path"]
    is_defect = found["label"].ne(GOOD) & (task_of(found) == "anomaly")
    found = found.assign(key=keys.astype(object), given=found["path"].isin(brought))
    return found.assign(untrained=is_defect.groupby(found["key"]).transform("any"))


def _leaks(paths: Paths, images: pd.DataFrame) -> pd.DataFrame:
    """The audit's pairs whose images are still in the splits in which it has found them."""
    file = paths.audit / "leaks.parquet"
    if not file.is_file():
        raise DataError(f"{file} does not exist", todo="run `graft repro audit`, which finds copies")
    pairs, split_of = pd.read_parquet(file, columns=BOTH), images.set_index("path")["split"]
    current = pairs["path"].map(split_of).eq(pairs["split"]) & pairs["other_path"].map(split_of).eq(
        pairs["other_split"]
    )
    return pairs[current]


def _earliest(pairs: pd.DataFrame, images: pd.DataFrame) -> pd.Series:
    """The split of each image if copies, and images of one unit, were together: the first in the order of `SPLITS`."""
    unit_N, units = pd.factorize(images["key"])
    row = pd.Series(np.arange(len(images)), index=images["path"])
    first, second = (unit_N[row[pairs[side]].to_numpy()] for side in ("path", "other_path"))
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(units), len(units)))
    together_N = connected_components(graph, directed=False)[1][unit_N]
    order = images["split"].map(SPLITS.index)
    return order.groupby(together_N).transform("min").map(dict(enumerate(SPLITS)))
