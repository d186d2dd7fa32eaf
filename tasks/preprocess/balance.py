"""Units dealt to the splits so that each class has its shares, without moving what is placed already.

Of class c, U_c units with n_c images are to be split. A split s wants the fraction f_s of both, and of three units or
more at least one. It deviates by

    sum over c of  (units_cs - wanted units_cs)^2 / U_c^2 + (images_cs - wanted images_cs)^2 / n_c^2

The largest units are dealt first (greedy, as the iterative stratification of Sechidis, Tsoumakas and Vlahavas 2011),
each where its hash puts it or to the nearest split where it lowers the deviation. A unit with more images of a class
than a split wants of it can only be trained on, unless none may train.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.manifest import SPLITS

Array = npt.NDArray[np.float64]

ROUNDING = 1e-12


def deal(
    images: pd.DataFrame, new: set[str], placed: Mapping[str, str], place_of: Mapping[str, float], share: Array
) -> dict[str, str]:
    """A split for each unit of `new`.

    Args:
        images: a row for each class of each image: columns `key` (the unit), `label`.
        placed: the split of each unit; of a new one, that of its hash.
        place_of: of the new units; high ones, which the hash trains on, are dealt first.
        share: f, in the order of `SPLITS`.
    """
    counts = images.groupby(["key", "label"], sort=True).size().rename("images").reset_index()
    counts = counts[counts["label"].isin(counts.loc[counts["key"].isin(new), "label"])]
    counts["class"] = pd.factorize(counts["label"])[0]
    have_2CS, total_2C = _standing(counts, new, placed)
    want_2CS = _wanted(total_2C, share)
    found: dict[str, str] = {}
    for key, of, images_M in _large_first(counts[counts["key"].isin(new)], place_of):
        adds_2M = np.stack([np.ones(len(of)), images_M])
        rise_S = _rise(adds_2M, have_2CS[:, of], want_2CS[:, of], total_2C[:, of])
        fits_S = (images_M[:, None] <= np.maximum(want_2CS[1, of], 1)).all(axis=0) | (np.array(SPLITS) == "train")
        fits_S |= share[0] == 0
        rise_S[~fits_S | (share == 0)] = np.inf
        chosen = _nearest(rise_S, SPLITS.index(placed[key]))
        have_2CS[:, of, chosen] += adds_2M
        found[key] = SPLITS[chosen]
    return found


def _large_first(counts: pd.DataFrame, place_of: Mapping[str, float]) -> list[tuple[str, npt.NDArray[np.int64], Array]]:
    """(unit, its M classes, its images of each)."""
    keys, first = np.unique(counts["key"].to_numpy(object), return_index=True)  # counts are sorted by key
    parts = (np.split(counts[name].to_numpy(kind), first[1:]) for name, kind in (("class", int), ("images", float)))
    return sorted(zip(keys, *parts), key=lambda unit: (-unit[2].sum(), -place_of[unit[0]], unit[0]))


def _standing(counts: pd.DataFrame, new: set[str], placed: Mapping[str, str]) -> tuple[Array, Array]:
    """(units and images of each class in each split (2, C, S), without the new ones; in all (2, C))."""
    classes = int(counts["class"].max()) + 1 if len(counts) else 0
    size_2R = np.stack([np.ones(len(counts)), counts["images"].to_numpy(np.float64)])
    split_R = counts["key"].map(placed).map(SPLITS.index).to_numpy(np.int64)
    standing_R = ~counts["key"].isin(new).to_numpy()
    have_2CS, total_2C = np.zeros((2, classes, len(SPLITS))), np.zeros((2, classes))
    for kind in range(2):
        where = counts["class"].to_numpy()[standing_R], split_R[standing_R]
        np.add.at(have_2CS[kind], where, size_2R[kind, standing_R])
        np.add.at(total_2C[kind], counts["class"].to_numpy(), size_2R[kind])
    return have_2CS, total_2C


def _wanted(total_2C: Array, share: Array) -> Array:
    """Units and images of each class that each split wants, (2, C, S)."""
    want_2CS = total_2C[:, :, None] * share
    at_least_one = (total_2C[0] >= len(SPLITS))[:, None] & (share[1:] > 0)
    want_2CS[:, :, 1:] = np.maximum(want_2CS[:, :, 1:], at_least_one)
    want_2CS[:, :, 0] = total_2C - want_2CS[:, :, 1:].sum(axis=2)
    return want_2CS


def _rise(adds_2M: Array, have_2MS: Array, want_2MS: Array, total_2M: Array) -> Array:
    """How much the deviation of each split rises with a unit of M classes, (S,): (x + a)^2 - x^2 = a (2 x + a)."""
    adds = adds_2M[:, :, None]
    return np.asarray((adds * (2 * (have_2MS - want_2MS) + adds) / total_2M[:, :, None] ** 2).sum(axis=(0, 1)))


def _nearest(rise_S: Array, own: int) -> int:
    """The split nearest to its own that lowers the deviation; without one, that which raises it least."""
    lower = [split for split in range(len(rise_S)) if rise_S[split] < -ROUNDING]
    return min(lower, key=lambda split: (abs(split - own), -split), default=int(rise_S.argmin()))
