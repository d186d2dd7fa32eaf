"""Which rows are held out together in cross-validation. N rows, U units, K classes.

A unit is what must not be torn: the images of a group, or the files with the same bytes. Units go one by one, the
large ones first, to the fold that has least of their classes, so that every fold has its share of each; for numbers, of
each tenth of them. A class of a single unit is never held out: without it, nothing could be learned of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .manifest import Task
from .pack import Pack, Rows

Array = npt.NDArray[Any]
Double = npt.NDArray[np.float64]

BINS = 10
"""Into which numbers are sorted."""


def assign(pack: Pack, rows: Rows, folds: int, seed: int) -> Rows:
    """The fold of each of `rows`, from 0 on; -1 for those that are always learned from. Some folds may be empty."""
    unit_of_row, units = units_of(pack, rows)
    has_NK = _has(pack.targets(rows), len(pack.classes), pack.task)
    count_UK = np.zeros((len(units), has_NK.shape[1]))
    np.add.at(count_UK, unit_of_row, has_NK)
    fold_U = _deal(count_UK, np.bincount(unit_of_row), [_chance(unit, seed) for unit in units], folds)
    if pack.task != "regression":
        fold_U = _keep_every_class(fold_U, count_UK, folds)
    return fold_U[unit_of_row]


def units_of(pack: Pack, rows: Rows) -> tuple[Rows, list[str]]:
    """(the unit of each of `rows`, the units' names)."""
    index = pack.index.iloc[rows]
    unit_of_row, units = pd.factorize(("group:" + index["group"].astype("string")).fillna(index["image_id"]))
    return unit_of_row.astype(np.int64), [str(unit) for unit in units]


def _has(target: Array, k: int, task: Task) -> Double:
    """(N, K) zeros and ones; of numbers, in which of `BINS` equally full bins each lies."""
    if task == "multilabel":
        return target
    if task == "regression":
        target, k = (target.argsort(kind="stable").argsort(kind="stable") * BINS) // len(target), BINS
    return np.eye(k)[target]


def _chance(unit: str, seed: int) -> int:
    """A number that depends on nothing but the unit and the seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{unit}".encode(), digest_size=8).digest(), "big")


def _deal(count_UK: Double, size_U: Rows, chance_U: list[int], folds: int) -> Rows:
    fold_U = np.empty(len(count_UK), np.int64)
    rare_K = 1 / np.maximum(count_UK.sum(axis=0), 1) ** 2
    held_FK, held_F = np.zeros((folds, count_UK.shape[1])), np.zeros(folds)
    for unit in sorted(range(len(count_UK)), key=lambda u: (-size_U[u], chance_U[u])):
        alike_F = held_FK @ (count_UK[unit] * rare_K)
        fold = np.lexsort((held_F, alike_F))[0]  # the least alike, and of those the smallest
        fold_U[unit] = fold
        held_FK[fold] += count_UK[unit]
        held_F[fold] += size_U[unit]
    return fold_U


def _keep_every_class(fold_U: Rows, count_UK: Double, folds: int) -> Rows:
    """-1 for units of a class that would be held out whole."""
    kept_U = fold_U.copy()
    total_K = count_UK.sum(axis=0)
    for fold in range(folds):
        inside = fold_U == fold
        whole_K = (count_UK[inside].sum(axis=0) == total_K) & (total_K > 0)
        kept_U[inside & (count_UK[:, whole_K] > 0).any(axis=1)] = -1
    return kept_U
