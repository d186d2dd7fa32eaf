"""The independent units of a data set: what is resampled, held out and counted as one.

A unit is the images of a group, or the files with the same decoded pixels; groups that share a picture are one unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy  # loads its parts, up to half a second each, when they are first used

from .feature_set import FeatureSet, Rows


def units_of(pack: FeatureSet, rows: Rows) -> tuple[Rows, list[str]]:
    """(the unit of each of `rows`, int64 codes from 0 on; the units' names, which do not depend on the order)."""
    return units(pack.index.iloc[rows])


def units(index: pd.DataFrame) -> tuple[Rows, list[str]]:
    """See `units_of`; for a table with the columns `group` and `pixels`."""
    named = ("group:" + index["group"].astype("string")).fillna(index["pixels"])
    unit_N, names = pd.factorize(named)
    return joined(unit_N.astype(np.int64), [str(name) for name in names], pd.factorize(index["pixels"])[0])


def joined(unit_N: Rows, names: Sequence[str], same_N: Rows) -> tuple[Rows, list[str]]:
    """Units, see `units_of`, of which those are one that share a value of `same_N`, directly or through others.

    Args:
        same_N: codes from 0 on: images with the same code belong together.
    """
    first = np.unique(same_N, return_index=True)[1]
    other_N = unit_N[first][np.unique(same_N, return_inverse=True)[1]]
    if (other_N == unit_N).all():
        return unit_N, list(names)
    links = scipy.sparse.coo_array((np.ones(len(unit_N)), (unit_N, other_N)), shape=(len(names),) * 2)
    whole_U = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    joined_N, wholes = pd.factorize(whole_U[unit_N])
    name_of = pd.Series(list(names), dtype=object).groupby(whole_U).min()
    return joined_N.astype(np.int64), [str(name_of[whole]) for whole in wholes]
