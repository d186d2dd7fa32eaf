"""Growing subsets of the images with the class shares of all of them, without splitting a group.

N images, U units (see `solvers.folds`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..common.data.feature_set import FeatureSet, Rows

Ints = npt.NDArray[np.int64]

TENTHS = 10
"""Number of ranges that targets of regression are divided into, so that each subset has small and large ones."""


def strata(pack: FeatureSet, rows: Rows) -> Ints:
    """Strata, (N,): the class; with several the rarest; for regression the decile; for anomaly one."""
    target = pack.targets(rows)
    if pack.task == "classification":
        return target
    if pack.task == "anomaly":
        return np.zeros(len(rows), np.int64)
    if pack.task == "regression":
        cuts = np.quantile(target, np.linspace(0, 1, TENTHS + 1)[1:-1])
        return np.searchsorted(cuts, target, side="right").astype(np.int64)
    frequency_K = target.sum(axis=0)
    rarest = np.where(target > 0, frequency_K, np.inf).argmin(axis=1)
    return np.where(target.any(axis=1), rarest, len(frequency_K)).astype(np.int64)


def growing(stratum_N: Ints, unit_N: Ints, shares: Sequence[float], seed: int) -> list[Ints]:
    """For each share, indices of that share of every stratum, with at least one unit of each; subsets are nested."""
    size_U, stratum_U = _of_units(stratum_N, unit_N)
    order = np.random.default_rng(seed).permutation(len(size_U))
    before_U, whole_U = np.empty(len(size_U), np.int64), np.empty(len(size_U), np.int64)
    for stratum in np.unique(stratum_U):
        mine = order[stratum_U[order] == stratum]
        before_U[mine] = np.cumsum(size_U[mine]) - size_U[mine]
        whole_U[mine] = size_U[mine].sum()
    return [np.flatnonzero((before_U < np.maximum(1, np.rint(share * whole_U)))[unit_N]) for share in shares]


def lacks_a_class(pack: FeatureSet, whole: Rows, part: Rows) -> bool:
    """Whether a class of the images `whole` is missing in this subset."""
    if pack.task in ("regression", "anomaly"):
        return False
    if pack.task == "classification":
        return len(np.unique(pack.labels(part))) < len(np.unique(pack.labels(whole)))
    return bool((pack.targets(whole).any(axis=0) & ~pack.targets(part).any(axis=0)).any())


def _of_units(stratum_N: Ints, unit_N: Ints) -> tuple[Ints, Ints]:
    """The size of each unit, and its stratum: the median of its images."""
    order = np.lexsort((stratum_N, unit_N))
    size_U = np.bincount(unit_N)
    first = np.cumsum(size_U) - size_U
    return size_U, stratum_N[order][first + size_U // 2]
