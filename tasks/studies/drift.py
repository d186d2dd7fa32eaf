"""Whether two samples of features come from one distribution: new images, and images that a model was trained on.

Two independent questions: is there an overall shift (MMD), and are there images unlike any training image (distance to
the nearest)? n reference images, m new images, N = n + m; D features, A axes, U groups, P permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, count
from math import comb
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from ..common.core.errors import DataError
from ..common.scoring.paired import holm

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]
"""Group codes, shape (N,)."""

AXES = 32
"""Principal axes in which images are compared, as in Rabanser et al. 2019. With 32 axes, 20 % of a new class among 200
images was detected in 85 % of the trials on hand signs and in 97 % on Fashion-MNIST; with all 1,280 features in 65 and
80 %, with 16 axes in 75 and 80 %, with 50 in 80 and 87 %."""

IMAGES_PER_AXIS = 10
"""Fewer images use fewer axes: whitened in as many axes as there are images, all are equally far apart."""

TESTS = 2
"""The number of tests on the same images; by Holm's method the smaller p must reach significance / TESTS."""

ROUNDING = 1e-12
"""Statistics that differ by less are equal: the same split, summed in another order."""


@dataclass(frozen=True)
class Finding:
    """The result of a test.

    Attributes:
        value: larger for more different samples.
        chance: the value that images of one distribution exceed with the probability `significance`.
        p: the probability that they reach `value`.
    """

    value: float
    chance: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """The results of both tests.

    Attributes:
        mmd: the overall shift. The value is the distance between the two means in the kernel's space, in units of the
            standard deviation within: 0 is no difference; a share s of strange images gives about s times the value of
            strange images alone.
        mmd2: the unbiased estimate of the squared maximum mean discrepancy behind it; may be negative.
        far: single images. The value is the share of new images that are farther from the nearest reference image than
            `far_distance`, which few reference images are.
        reference_distances, distances: (n,) and (m,), from each image to the nearest (other) reference image.
        axes_N2: all images along the first two axes, reference first.
        places: int64, which of the given n + m images these N are; see `even`.
        reference_groups, groups: the numbers of groups.
        tests: the tests that found drift, corrected for their number.
    """

    mmd: Finding
    mmd2: float
    far: Finding
    far_distance: float
    reference_distances: Array
    distances: Array
    axes_N2: Array
    places: npt.NDArray[np.int64]
    reference_groups: int
    groups: int
    tests: tuple[str, ...]

    @property
    def verdict(self) -> Literal["none", "drift"]:
        return "drift" if self.tests else "none"


def compare(
    reference_nD: npt.NDArray[Any],
    today_mD: npt.NDArray[Any],
    *,
    significance: float,
    permutations: int,
    far_quantile: float,
    min_effect: float = 0.0,
    seed: int = 0,
    groups_N: Groups | None = None,
) -> Comparison:
    """Both tests, and their joint verdict.

    Args:
        significance: the probability of reporting drift for images of the same distribution.
        permutations: for both tests.
        far_quantile: the share of the reference images that do not count as far.
        min_effect: a smaller value of `mmd` is not drift, however certain.
        groups_N: reference first, in at least two groups; images of one group are not independent. By default each
            image is a group of its own.

    Raises:
        DataError: there are so few groups that even the strangest images could not be significant.
    """
    n, m = len(reference_nD), len(today_mD)
    groups_N = np.arange(n + m) if groups_N is None else _as_codes(groups_N, n)
    ours, groups = int(groups_N[:n].max()) + 1, int(groups_N.max()) + 1
    check_groups(ours, groups - ours, significance)
    places = even(groups_N, n, seed)
    groups_N, n = groups_N[places], int((places < n).sum())
    z_NA = coordinates(np.concatenate([reference_nD, today_mD])[places])
    d2_NN = squared_distances(z_NA)
    sides_NP = deals(groups_N, n, permutations, seed)
    mmd, mmd2 = mmd_test(gaussian_kernel(d2_NN), sides_NP, significance)
    far, limit, nearest_N = far_test(d2_NN, sides_NP, groups_N, far_quantile, significance)
    p_values = {"mmd": mmd.p, "far": far.p}
    says = set(holm(p_values, significance)) - ({"mmd"} if mmd.value < min_effect else set())
    tests = tuple(name for name in p_values if name in says)
    return Comparison(
        mmd, mmd2, far, limit, nearest_N[:n], nearest_N[n:], z_NA[:, :2], places, ours, groups - ours, tests
    )


def check_groups(ours: int, others: int, significance: float) -> None:
    """Raises:
    DataError: the groups can be permuted in so few ways that p cannot be small enough.
    """
    if _ways(ours, others) >= TESTS / significance:
        return
    needed = next(number for number in count(others + 1) if _ways(ours, number) >= TESTS / significance)
    raise DataError(
        "there are too few groups to tell drift from chance",
        got=f"{others} of the new images and {ours} of the model's, with {_ways(ours, others)} permutations",
        allowed=f"{needed} or more groups of new images with {ours} of the model's: "
        f"{TESTS} / drift.significance = {TESTS / significance:g} permutations or more",
        todo="compare images of more groups; if there are none, set a larger drift.significance",
    )


def _ways(ours: int, others: int) -> int:
    """The number of ways to deal the groups; exchanging two sides with equally many groups gives the same MMD."""
    return comb(ours + others, ours) // (2 if ours == others else 1)


def even(groups_N: Groups, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted places of the images to compare: of each group at most as many, drawn at random, as the median group has
    on the side with the smaller groups.

    Permutations exchange groups, so groups must be of similar size: films of fifty frames among single images make the
    sides of every permutation so uneven that chance alone looks like any shift.
    """
    sizes = np.bincount(groups_N)
    ours = int(groups_N[:n].max()) + 1
    most = int(min(np.median(sizes[:ours]), np.median(sizes[ours:])))
    shuffled = np.random.default_rng(seed).permutation(len(groups_N))
    order = shuffled[np.argsort(groups_N[shuffled], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < most])


def _as_codes(groups_N: Groups, n: int) -> Groups:
    """Codes from 0, those of the first n images first; a group on both sides counts as two."""
    first, second = (np.unique(part, return_inverse=True)[1] for part in (groups_N[:n], groups_N[n:]))
    return np.concatenate([first, second + first.max() + 1])


def coordinates(x_ND: npt.NDArray[Any]) -> Array:
    """The coordinates in which images are compared, (N, A) with A >= 2: whitened principal components of the features
    at unit length (Sun et al. 2022: without normalisation the distance to the nearest does not detect strange images).

    Reference and new images are transformed together: treating both alike keeps a permutation test exact.
    """
    x = x_ND.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x /= np.where(length > 0, length, 1.0)
    x -= x.mean(axis=0)
    axes = max(2, min(AXES, len(x) // IMAGES_PER_AXIS))
    wide = x.shape[1] > len(x)
    gram = x @ x.T if wide else x.T @ x
    last = len(gram) - 1
    value_A, vector = (part[..., ::-1] for part in eigh(gram, subset_by_index=[max(0, last - axes + 1), last]))
    kept_A = value_A > 1e-9 * max(float(value_A[0]), np.finfo(np.float64).tiny)
    score = vector if wide else x @ (vector / np.sqrt(np.where(kept_A, value_A, 1.0)))
    z = np.zeros((len(x), axes))
    z[:, : len(value_A)] = np.sqrt(len(x)) * score * kept_A
    return z


def squared_distances(z_NA: Array) -> Array:
    """Between all pairs of images, (N, N)."""
    square_N = (z_NA**2).sum(axis=1)
    d2 = np.maximum(square_N[:, None] + square_N - 2 * (z_NA @ z_NA.T), 0.0)
    np.fill_diagonal(d2, 0.0)
    return d2


def gaussian_kernel(d2_NN: Array) -> Array:
    """exp(-d^2 / (2 s^2)) with s the median of all distances (Gretton et al. 2012)."""
    median = float(np.median(d2_NN[np.triu_indices(len(d2_NN), 1)]))
    return np.exp(-d2_NN / (2 * median if median > 0 else 1.0))


def deals(groups_N: Groups, n: int, permutations: int, seed: int) -> npt.NDArray[np.bool_]:
    """(N, P): which images are on the first side. Column 0 has the first n, as observed; the others have as many groups
    drawn at random, with P = 1 + permutations; or every possible deal once, if there are not more than that."""
    groups, ours = int(groups_N.max()) + 1, int(groups_N[:n].max()) + 1
    if comb(groups, ours) <= 1 + permutations:
        drawn = np.array(list(combinations(range(groups), ours))).T  # the first of them is 0, 1, ...: as observed
    else:
        random = np.random.default_rng(seed).random((groups, permutations)).argsort(axis=0)[:ours]
        drawn = np.concatenate([np.arange(ours)[:, None], random], axis=1)
    side_UP = np.zeros((groups, drawn.shape[1]), np.bool_)
    np.put_along_axis(side_UP, drawn, True, axis=0)
    return side_UP[groups_N]


def mmd_test(k_NN: Array, sides_NP: npt.NDArray[np.bool_], significance: float) -> tuple[Finding, float]:
    """(finding, MMD^2) by a permutation test (Gretton et al. 2012).

    All deals share one kernel: with z the indicator of a side, the sums within it and over its rows are z'Kz and z'K1,
    so one product K Z serves all deals.
    """
    z_NP = sides_NP.astype(np.float64)
    k_NN = k_NN - np.diag(np.diag(k_NN))
    product_NP = k_NN @ z_NP
    within_P, row_P, total = (z_NP * product_NP).sum(axis=0), product_NP.sum(axis=0), float(k_NN.sum())
    n_P = z_NP.sum(axis=0)
    m_P = len(k_NN) - n_P
    first_P = within_P / np.maximum(n_P * (n_P - 1), 1)
    second_P = (total - 2 * row_P + within_P) / np.maximum(m_P * (m_P - 1), 1)
    mmd2_P = first_P + second_P - 2 * (row_P - within_P) / (n_P * m_P)
    spread = max(1 - float(first_P[0] + second_P[0]) / 2, ROUNDING)  # the variance within, as k(x, x) = 1
    value_P = np.sqrt(np.maximum(mmd2_P, 0.0) / spread)
    return _finding(value_P, mmd2_P, significance), float(mmd2_P[0])


def far_test(
    d2_NN: Array, sides_NP: npt.NDArray[np.bool_], groups_N: Groups, quantile: float, significance: float
) -> tuple[Finding, float, Array]:
    """(finding, the distance beyond which an image is far, (N,) the distances to the nearest reference image).

    Every deal has its own limit, the j-th largest distance among its n reference images with j / n = 1 - quantile. Far
    images come in clusters: a binomial test, which assumes independence, would report drift too often.
    """
    nearest_NP = nearest_distances(d2_NN, sides_NP, groups_N)
    n_P = sides_NP.sum(axis=0)
    j_P = np.maximum(1, np.rint((1 - quantile) * n_P)).astype(np.int64)
    falling_NP = -np.sort(-np.where(sides_NP, nearest_NP, -np.inf), axis=0)
    limit_P = np.take_along_axis(falling_NP, j_P[None] - 1, axis=0)[0]
    share_P = ((nearest_NP > limit_P) & ~sides_NP).sum(axis=0) / (len(d2_NN) - n_P)
    return _finding(share_P, share_P, significance), float(limit_P[0]), nearest_NP[:, 0]


def nearest_distances(d2_NN: Array, sides_NP: npt.NDArray[np.bool_], groups_N: Groups) -> Array:
    """(N, P): from each image to the nearest one on the first side outside its group; infinite if there is none."""
    apart_NN = np.where(groups_N[:, None] == groups_N, np.inf, d2_NN)
    order_NN = apart_NN.argsort(axis=1)
    nearest_NP = np.full(sides_NP.shape, np.inf)
    row, deal = (places.reshape(-1) for places in np.indices(sides_NP.shape, dtype=np.int32))
    for k in range(len(d2_NN)):  # neighbour by neighbour until each has met one: a few times N / n
        who = order_NN[row, k]
        met = sides_NP[who, deal]
        nearest_NP[row[met], deal[met]] = apart_NN[row[met], who[met]]
        row, deal = row[~met], deal[~met]
        if not len(row):
            break
    return np.sqrt(nearest_NP)


def _finding(value_P: Array, statistic_P: Array, significance: float) -> Finding:
    """The first deal among all, itself included (Phipson & Smyth 2010)."""
    p = float((statistic_P >= statistic_P[0] - ROUNDING).mean())
    return Finding(float(value_P[0]), float(np.quantile(value_P, 1 - significance)), p)
