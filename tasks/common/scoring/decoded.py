"""The metrics of decoded images, from a table with the numbers of each. N images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .images import LIKENESS, OF_MASKS, OVERLAP
from .influence import Floats, Ints
from .intervals import interval
from .main_metric import metric_of


def columns(table: pd.DataFrame) -> Floats:
    """(N, 2) or (N, 3): `LIKENESS` of images, or `OVERLAP` of masks."""
    return table[list(OVERLAP if OVERLAP[0] in table else LIKENESS)].to_numpy(np.float64)


def keys_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The metrics that its columns allow."""
    return OF_MASKS if OVERLAP[0] in table else LIKENESS


def scores(table: pd.DataFrame, unit_N: Ints, confidence: float) -> dict[str, float]:
    """The metrics, and the ends of their intervals: `psnr`, `psnr_low`, `psnr_high` and so on; nan if undefined.

    Args:
        unit_N: the unit of each image, see `data/units.py`.
    """
    output, target = columns(table), np.zeros(len(table))
    found: dict[str, float] = {}
    for key in keys_of(table):
        low, high = interval(output, target, unit_N, "reconstruction", metric=key, confidence=confidence)
        found |= {key: metric_of(output, target, key, "reconstruction"), f"{key}_low": low, f"{key}_high": high}
    return found
