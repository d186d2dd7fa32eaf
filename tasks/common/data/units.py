"""The independent units of a data set: what is resampled, held out and counted as one.

A unit is the images of a group, or the files with the same decoded pixels.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .feature_set import FeatureSet, Rows


def units_of(pack: FeatureSet, rows: Rows) -> tuple[Rows, list[str]]:
    """(the unit of each of `rows`, int64 codes from 0 on; the units' names)."""
    index = pack.index.iloc[rows]
    unit_of_row, units = pd.factorize(("group:" + index["group"].astype("string")).fillna(index["pixels"]))
    return unit_of_row.astype(np.int64), [str(unit) for unit in units]
