"""Which rows are held out together in cross-validation. N rows, U units, K classes.

A unit is not divided: see `data/units.py`. Units are assigned one by one, the large
ones first, to the fold with the fewest of their classes, so that every fold has its share of each class, or of each
tenth of the numbers. The only unit of a class is never held out: otherwise the class could not be learned.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, up to half a second each, when they are first used

from .feature_set import FeatureSet, Rows
from .manifest import Task
from .units import units_of

Array = npt.NDArray[Any]

BINS = 10
"""Into which numbers are sorted."""


def assign(pack: FeatureSet, rows: Rows, folds: int, seed: int) -> Rows:
    """The fold of each of `rows`, from 0 on; -1 for those that are always learned from. Some folds may be empty."""
    return assign_units(pack, rows, units_of(pack, rows), folds, seed)


def assign_units(pack: FeatureSet, rows: Rows, units_of_rows: tuple[Rows, list[str]], folds: int, seed: int) -> Rows:
    """See `assign`; with other units than those of `units_of`: (the unit of each row, the units' names)."""
    unit_of_row, units = units_of_rows
    count_UK = _count(pack.targets(rows), unit_of_row, (len(units), len(pack.classes) or BINS), pack.task)
    fold_U = _deal(count_UK, np.bincount(unit_of_row), [_chance(unit, seed) for unit in units], folds)
    if pack.task != "regression":
        fold_U = _keep_every_class(fold_U, count_UK, folds)
    return fold_U[unit_of_row]


def _count(target: Array, unit_of_row: Rows, shape: tuple[int, int], task: Task) -> scipy.sparse.csr_array:
    """How many rows of each class a unit has (U, K); of numbers, of each of `BINS` equally full bins."""
    row_of_one = np.arange(len(target))
    if task == "multilabel":
        row_of_one, target = np.nonzero(target)
    if task == "regression":
        target = (target.argsort(kind="stable").argsort(kind="stable") * BINS) // len(target)
    one_N = np.ones(len(row_of_one))
    return scipy.sparse.csr_array((one_N, (unit_of_row[row_of_one], target)), shape=shape)  # sums what is twice


def _chance(unit: str, seed: int) -> int:
    """A number that depends only on the unit and the seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{unit}".encode(), digest_size=8).digest(), "big")


def _deal(count_UK: scipy.sparse.csr_array, size_U: Rows, chance_U: list[int], folds: int) -> Rows:
    fold_U = np.empty(count_UK.shape[0], np.int64)
    rare_K = 1 / np.maximum(count_UK.sum(axis=0), 1) ** 2
    held_FK, held_F = np.zeros((folds, count_UK.shape[1])), np.zeros(folds)
    for unit in sorted(range(len(fold_U)), key=lambda u: (-size_U[u], chance_U[u])):
        entries = slice(count_UK.indptr[unit], count_UK.indptr[unit + 1])
        has, times = count_UK.indices[entries], count_UK.data[entries]
        alike_F = held_FK[:, has] @ (times * rare_K[has])
        fold = np.lexsort((held_F, alike_F))[0]  # the least alike, and of those the smallest
        fold_U[unit] = fold
        held_FK[fold, has] += times
        held_F[fold] += size_U[unit]
    return fold_U


def _keep_every_class(fold_U: Rows, count_UK: scipy.sparse.csr_array, folds: int) -> Rows:
    """-1 for units of a class that would be held out whole."""
    kept_U = fold_U.copy()
    total_K = count_UK.sum(axis=0)
    for fold in range(folds):
        inside = fold_U == fold
        whole_K = (count_UK[inside].sum(axis=0) == total_K) & (total_K > 0)
        kept_U[inside & (count_UK @ whole_K > 0)] = -1
    return kept_U
