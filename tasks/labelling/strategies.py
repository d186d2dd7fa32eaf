"""Which images of a pool to label next. P images of the pool, L labelled ones, D features, K classes, n wanted.

typical: the densest image of each of the largest clusters that have no label yet (TypiClust, Hacohen et al. 2022), for
    the first labels, where no model can be trusted.
margin: images that the model cannot tell, spread over the pool: those in most doubt are clustered, and of each cluster
    the image next to its centre is taken (Zhdanov 2019). A class that the model takes images for has a share as large
    as the errors that are to be expected there. What doubt is depends on the task, see `doubts`.
auto: typical until there are `FIRST` labels a class, and at least `LEAST`, then margin.

Whatever the strategy, some images are drawn at random: only these are a fair sample. Near-copies of an image that has a
label, or was asked about before, are not asked again; of images that belong together one is asked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans

from ..common.core.blocks import blocks
from ..common.data.matrix import Matrix
from ..common.data.task import Task
from ..common.heads.base import unit_length

Strategy = Literal["auto", "typical", "margin", "random"]
Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Turn = Callable[[Matrix], Single]

RANDOM = "random"
"""Why an image was drawn for no reason of its own."""

FIRST = 5
"""Labels a class from which on `auto` trusts the model; on hand signs, 10 were 3 points worse at 100 labels."""

LEAST = 25
"""Labels from which on it does; with two classes of insects, 10 were 4 points worse at 25 labels."""

RANDOM_SHARE = 0.05
"""Of the images asked, how many are drawn at random: at least one."""

AXES = 64
"""Principal axes in which images are clustered."""

AHEAD = 5
"""Candidates for each image wanted, before they are spread."""

NEAR = 0.95
"""Cosine of thumbnails from which on two images are near-copies."""

NEIGHBOURS = 20
"""Of which the mean distance tells how typical an image is, as in the paper."""

MOST_CLUSTERS = 500
"""As in the paper: clusters of fewer images would have no inside."""

SAMPLE = 2_000
"""Images by which the axes are found."""

MANY = 20_000
"""Images from which on they are clustered in small batches."""


@dataclass(frozen=True)
class Pool:
    """Where to choose from.

    Attributes:
        features_PD: of the images without a label; with up to `AXES` columns, taken to be axes already, see `axes_of`.
        unit_P: codes of the independent units (a patient, a video); images of one unit belong together.
        p_PK: the model's probabilities of each, or (P, 1), numbers; None without a model.
        known_LD: features of images that have a label.
        label_L: the class code of each, any code from 0 on if it has another kind of label.
        classes: K; 0 for numbers.
        small_PV, known_small_LV: thumbnails of both, by which near-copies are found; None: all images are taken to be
            different.
        task: what the labels are.
        unsure_P: how far the models of a regression disagree about each, see `probe.disagreement`.
    """

    features_PD: Single
    unit_P: Rows
    p_PK: Double | None
    known_LD: Matrix
    label_L: Rows
    classes: int
    seed: int = 0
    small_PV: npt.NDArray[Any] | None = None
    known_small_LV: npt.NDArray[Any] | None = None
    task: Task = "classification"
    unsure_P: Double | None = None


@dataclass(frozen=True)
class Chosen:
    """Attributes:
    rows: of the pool, in the order in which to ask.
    why: for each, the strategy that chose it, or `random`.
    strategy: what `auto` amounted to.
    """

    rows: Rows
    why: list[str] = field(default_factory=list)
    strategy: str = RANDOM


def choose(pool: Pool, wanted: int, strategy: Strategy = "auto") -> Chosen:
    """At most `wanted` images; fewer if the pool has fewer that are no near-copies.

    The random ones are spread evenly among the others: who stops early leaves a fair share too.
    """
    real = settled(pool, strategy)
    rng = np.random.default_rng(pool.seed)
    drawn = wanted if real == RANDOM else max(1, round(RANDOM_SHARE * wanted))
    taken = _Taken(pool)
    at_random = taken.first(_at_random(pool, rng), drawn)
    of = {"typical": _typical, "margin": _margin}
    picked = [] if real == RANDOM else taken.first(of[real](pool, wanted, rng), wanted - len(at_random))
    at_random += taken.first(_at_random(pool, rng), wanted - len(picked) - len(at_random))
    return _mixed(picked, at_random, real)


def settled(pool: Pool, strategy: Strategy) -> str:
    """What `auto` amounts to; `margin` without a model is `typical`."""
    if strategy == "random":
        return RANDOM
    trusted = doubts(pool) is not None
    enough = len(pool.label_L) >= max(FIRST * pool.classes, LEAST)
    return "margin" if trusted and (strategy == "margin" or (strategy == "auto" and enough)) else "typical"


def _mixed(picked: list[int], at_random: list[int], strategy: str) -> Chosen:
    places = np.concatenate([_even(len(picked)), _even(len(at_random))])
    order = np.argsort(places, kind="stable")
    rows = np.array([*picked, *at_random], np.int64)[order]
    why = np.array([strategy] * len(picked) + [RANDOM] * len(at_random), object)[order]
    return Chosen(rows, list(why), strategy)


def _even(count: int) -> Double:
    return (np.arange(count) + 0.5) / max(count, 1)


class _Taken:
    """Takes images from an order of preference: no near-copies, and one of each unit first."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rows: list[int] = []
        self._units: set[int] = set()
        self._is_copy: dict[int, bool] = {}

    def first(self, preferred: Iterator[Rows], count: int) -> list[int]:
        """The first `count` of them that may be taken; those of units that were taken before come last."""
        found: list[int] = []
        later: list[int] = []
        for block in preferred:
            self._find_copies(block)
            for row in block.tolist():
                if len(found) >= count:
                    return found
                if self._is_copy[row] or row in self._rows:
                    continue
                if int(self._pool.unit_P[row]) in self._units:
                    later.append(row)
                elif self._take(row):
                    found.append(row)
        for row in later:
            if len(found) < count and row not in self._rows and self._take(row):
                found.append(row)
        return found

    def _find_copies(self, rows: Rows) -> None:
        """Of known images."""
        new = [row for row in rows.tolist() if row not in self._is_copy]
        near = np.zeros(len(new), np.bool_)
        small_PV, known_LV = self._pool.small_PV, self._pool.known_small_LV
        if small_PV is not None and known_LV is not None and new:
            own_BV = _directions(small_PV[new])
            for part in blocks(len(known_LV)):
                near |= (own_BV @ _directions(known_LV[part]).T >= NEAR).any(axis=1)
        self._is_copy.update(zip(new, near.tolist(), strict=True))

    def _take(self, row: int) -> bool:
        """False for a near-copy of one that is taken."""
        small_PV = self._pool.small_PV
        if small_PV is not None and self._rows:
            cosine = _directions(small_PV[self._rows]) @ _directions(small_PV[[row]])[0]
            if float(cosine.max()) >= NEAR:
                self._is_copy[row] = True
                return False
        self._rows.append(row)
        self._units.add(int(self._pool.unit_P[row]))
        return True


def _directions(small_BV: npt.NDArray[Any]) -> Single:
    return unit_length(small_BV.astype(np.float32))


def _at_random(pool: Pool, rng: np.random.Generator) -> Iterator[Rows]:
    order = rng.permutation(len(pool.features_PD))
    yield from np.array_split(order, max(1, len(order) // 256))


# typical


def _typical(pool: Pool, wanted: int, rng: np.random.Generator) -> Iterator[Rows]:
    """One image of each cluster, those without a label first and the largest first; then the second of each."""
    axes = axes_of(pool.features_PD, rng)
    x_NR = np.concatenate([axes(pool.features_PD), axes(pool.known_LD)])
    count = len(pool.features_PD)
    clusters = min(MOST_CLUSTERS, count, len(x_NR) - count + wanted)
    cluster_N = _clusters(x_NR, clusters, rng)
    labels_C = np.bincount(cluster_N[count:], minlength=clusters)
    members = [np.flatnonzero(cluster_N[:count] == c) for c in range(clusters)]
    order = sorted(range(clusters), key=lambda c: (labels_C[c], -len(members[c])))
    ranked = [rows[np.argsort(_spread(x_NR[rows]), kind="stable")] for rows in members]
    for depth in range(max(map(len, ranked), default=0)):
        yield np.array([ranked[c][depth] for c in order if len(ranked[c]) > depth], np.int64)


def _spread(x_MR: Single) -> Double:
    """(M,), the mean distance of each image of a cluster to its nearest; a large cluster's to those of a sample."""
    others = x_MR[:: max(1, len(x_MR) // 2000)]
    k = min(NEIGHBOURS, len(others) - 1)
    if k < 1:
        return np.zeros(len(x_MR))
    found = np.empty(len(x_MR))
    for part in blocks(len(x_MR)):
        squared = (x_MR[part] ** 2).sum(1)[:, None] + (others**2).sum(1) - 2 * x_MR[part] @ others.T
        nearest = np.partition(squared, k, axis=1)[:, : k + 1]
        found[part] = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
    return found


# margin


def _margin(pool: Pool, wanted: int, rng: np.random.Generator) -> Iterator[Rows]:
    """One of each cluster of the images in most doubt, then those that are left, by their doubt."""
    found = doubts(pool)
    assert found is not None
    doubt_P, kind_P = found
    candidates = _shared(doubt_P, kind_P, AHEAD * wanted)
    x_MR = axes_of(pool.features_PD, rng)(pool.features_PD[candidates])
    cluster_M = _clusters(x_MR, min(wanted, len(candidates)), rng, doubt_P[candidates] + 1e-6)
    yield candidates[_central(x_MR, cluster_M, doubt_P[candidates])]
    yield candidates[np.argsort(-doubt_P[candidates], kind="stable")]
    yield np.argsort(-doubt_P, kind="stable")


def _central(x_MR: Single, cluster_M: Rows, doubt_M: Double) -> Rows:
    """The image of each cluster that is next to its centre, weighted by doubt; by the doubt of the cluster."""
    found: list[tuple[float, int]] = []
    for cluster in np.unique(cluster_M):
        rows = np.flatnonzero(cluster_M == cluster)
        weight = doubt_M[rows] + 1e-6
        centre = weight @ x_MR[rows] / weight.sum()
        nearest = rows[((x_MR[rows] - centre) ** 2).sum(axis=1).argmin()]
        found.append((-float(weight.mean()), int(nearest)))
    return np.array([row for _, row in sorted(found)], np.int64)


def doubts(pool: Pool) -> tuple[Double, Rows] | None:
    """(how little the model can tell of each, (P,) from 0 to 1; what it takes each for, (P,)); None without a model.

    One class an image: how close the two most probable classes are. Several: how close the probability of any class is
    to the threshold, 0.5, and which class that is. Numbers: how far models disagree, and the tenth that the number is
    in.
    """
    p_PK = pool.p_PK
    if p_PK is None or not len(p_PK):
        return None
    if pool.task == "classification" and p_PK.shape[1] > 1:
        return 1 - margins(p_PK), p_PK.argmax(axis=1)
    if pool.task == "multilabel":
        close_PK = 1 - 2 * np.abs(p_PK - 0.5)
        return close_PK.max(axis=1), close_PK.argmax(axis=1)
    if pool.task == "regression" and pool.unsure_P is not None:
        tenth_P = np.searchsorted(np.quantile(p_PK[:, 0], np.linspace(0.1, 0.9, 9)), p_PK[:, 0])
        return pool.unsure_P / max(float(pool.unsure_P.max()), 1e-12), tenth_P
    return None


def margins(p_PK: Double) -> Double:
    """(P,), by how much the most probable class is ahead of the second: 0 where the model cannot tell."""
    two = np.partition(p_PK, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _shared(doubt_P: Double, kind_P: Rows, count: int) -> Rows:
    """The images in most doubt, each kind in proportion to the doubt about all its images, as far as there are."""
    order = np.argsort(-doubt_P, kind="stable")
    position_P = np.empty(len(order))
    for kind in np.unique(kind_P):
        own = order[kind_P[order] == kind]
        position_P[own] = (np.arange(len(own)) + 0.5) / (doubt_P[own].sum() + 1e-12)
    return np.lexsort((-doubt_P, position_P))[:count]


def axes_of(features_ND: Single, rng: np.random.Generator) -> Turn:
    """What turns the directions of features (M, D) into the leading principal axes of a sample, (M, R); features of up
    to `AXES` columns stay as they are."""
    if features_ND.shape[1] <= AXES:
        return lambda x_MD: x_MD[:]
    sample = unit_length(features_ND[np.sort(rng.permutation(len(features_ND))[:SAMPLE])])
    mean_D = sample.mean(axis=0)
    _, _, axes_RD = np.linalg.svd(sample - mean_D, full_matrices=False)
    axes_RD = axes_RD[:AXES]

    def turn(x_MD: Matrix) -> Single:
        x_MR = np.empty((x_MD.shape[0], len(axes_RD)), np.float32)
        for part in blocks(len(x_MR)):
            x_MR[part] = (unit_length(x_MD[part]) - mean_D) @ axes_RD.T
        return x_MR

    return turn


def _clusters(x_NR: Single, count: int, rng: np.random.Generator, weight_N: Double | None = None) -> Rows:
    seed = int(rng.integers(2**31))
    if len(x_NR) > MANY:
        found = MiniBatchKMeans(count, random_state=seed, batch_size=4096, n_init=1, max_iter=20)
    else:
        found = KMeans(count, random_state=seed, n_init=1, max_iter=50)
    return found.fit(x_NR, sample_weight=weight_N).labels_.astype(np.int64)
