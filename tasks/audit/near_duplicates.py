"""Pairs of images that are the same picture: saved again, resized, retouched, or consecutive frames.

Two cosines decide, each of whitened rows (see `whitened`):

- of thumbnails (see `thumbnails`): finds JPEG of quality 50 to 95 and 0.75 to 1.25 times the size;
- of features: also finds mirrored and cropped photographs; only if the thumbnails are not dissimilar.

Up to some ten thousand images, all are compared with all; above, an index proposes pairs (`solvers/neighbours.py`), and
the cosines of all that it proposes are computed from the rows themselves: what is reported is exact, and the
documentation says how much may be missed.

The documentation has the measurements. A threshold for the features alone does not work: for images of 28 or 100 pixels
a side, a copy in JPEG 50 has features farther from those of its original than other images have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # loads its parts, up to half a second each, when they are first used

from ..common.core.blocks import blocks
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Floats, Rows
from ..common.data.manifest import SPLITS
from ..common.solvers.neighbours import Index, at_once, is_large, recommend

DOWN, ACROSS = 1024, 8192
"""Rows and columns of the cosines in memory at a time."""

MOST = 1_000_000
"""Maximum number of listed pairs within splits, and as many across splits: the most similar ones."""

PLACES = 4
"""Decimal places of cosines: further ones depend on the order in which threads sum."""

COLUMNS = [
    "path", "split", "label", "other_path", "other_split", "other_label", "cosine_pixels", "cosine_features",
    "image_id", "other_image_id",
]  # fmt: skip


@dataclass(frozen=True)
class NearDuplicates:
    """Attributes:
    pairs: `first`, `second` (indices of images, `first` in the earlier split), `cosine_pixels`, `cosine_features`; the
        most similar first.
    count: of all pairs, listed or not.
    leaked_N: whether an image is also in an earlier split (train, val, test); by all pairs, listed or not.
    conflicting_N: whether an image of train or val is also there under another label.
    picture_N: codes from 0 on: images that are the same picture, directly or through others, by all pairs.
    """

    pairs: pd.DataFrame
    count: int
    leaked_N: npt.NDArray[np.bool_]
    conflicting_N: npt.NDArray[np.bool_]
    picture_N: Rows

    def leaks(self, pack: FeatureSet) -> pd.DataFrame:
        """Pairs across splits: `COLUMNS`."""
        split = self._both(pack, "split")
        return self._table(pack, split[0] != split[1])

    def leaked(self, pack: FeatureSet) -> pd.DataFrame:
        """All images of val and test that are also in an earlier split: `image_id`, `path`, `split`."""
        return pack.index[["image_id", "path", "split"]][self.leaked_N].astype(str).reset_index(drop=True)

    def conflicts(self, pack: FeatureSet) -> pd.DataFrame:
        """Pairs of training and validation images under different labels: `COLUMNS`."""
        split, label = self._both(pack, "split"), self._both(pack, "label")
        of_classes = len(pack.classes) > 0  # numbers of regression that differ a little do not conflict
        return self._table(pack, (split != "test").all(axis=0) & (label[0] != label[1]) & of_classes)

    def _both(self, pack: FeatureSet, column: str) -> npt.NDArray[np.object_]:
        """(2, pairs): the values of the first and of the second image."""
        values = pack.index[column]
        return np.stack([values.iloc[self.pairs[side]].astype(str).to_numpy(object) for side in ("first", "second")])

    def _table(self, pack: FeatureSet, chosen: npt.NDArray[np.bool_]) -> pd.DataFrame:
        pairs = self.pairs[chosen]
        facts = pack.index[["image_id", "path", "split", "label"]]
        first = facts.iloc[pairs["first"]].astype(str).reset_index(drop=True)
        second = facts.iloc[pairs["second"]].astype(str).reset_index(drop=True).add_prefix("other_")
        cosines = pairs[["cosine_pixels", "cosine_features"]].reset_index(drop=True)
        return pd.concat([first, second, cosines], axis=1)[COLUMNS]


def find_near_duplicates(
    pack: FeatureSet,
    pixels_NR: Floats,
    features_NR: Floats,
    near_pixels: float,
    near_features: float,
    believed: Callable[[Rows, Rows], npt.NDArray[np.bool_]],
) -> NearDuplicates:
    """All pairs whose thumbnails or features have at least these cosines; both as `whitened` gives them.

    Args:
        believed: (first, second) -> which of these pairs, similar only by features, also have similar thumbnails.
    """
    n = len(pixels_NR)
    rank_N = pack.index["split"].map(SPLITS.index).to_numpy()
    label_N = pd.factorize(pack.index["label"])[0]
    names = pack.task != "regression"
    leaked, conflicting = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    within: list[pd.DataFrame] = []
    across_splits: list[pd.DataFrame] = []
    picture_N, links = np.arange(n), [np.empty((2, 0), np.int64)]
    count = 0
    rows = Both(pixels_NR, features_NR, near_pixels, near_features)
    recommend(n, "audit")
    compare = _proposed if is_large(n) else _all
    with progress("audit: comparing", n) as bar:
        for found in compare(rows, n):
            for pairs in found:
                pairs = pairs[_believed(pairs, near_pixels, believed)]
                pairs = _earlier_first(pairs, rank_N)
                first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
                leaked[second[rank_N[first] < rank_N[second]]] = True
                other = (label_N[first] != label_N[second]) & (rank_N[second] < SPLITS.index("test")) & names
                conflicting[first[other]] = conflicting[second[other]] = True
                count += len(pairs)
                links.append(_links(np.stack([first, second])))
                leak = rank_N[first] != rank_N[second]
                within = _most_alike([*within, pairs[~leak]])
                across_splits = _most_alike([*across_splits, pairs[leak]])
            picture_N, links = _linked(picture_N[np.concatenate(links, axis=1)], picture_N), links[:1]
            bar.add(min(DOWN, n - bar.done))
    pairs = pd.concat([*within, *across_splits])
    order = np.lexsort((pairs["second"], pairs["first"], -_likeness(pairs)))
    return NearDuplicates(pairs.iloc[order].reset_index(drop=True), count, leaked, conflicting, picture_N)


def _links(ends_2P: Rows) -> Rows:
    """Pairs that link the same images as these, but at most one for each image, (2, L)."""
    nodes, place_2P = np.unique(ends_2P, return_inverse=True)
    whole = _linked(place_2P.reshape(2, -1), np.arange(len(nodes)))
    return np.stack([nodes, nodes[np.unique(whole, return_index=True)[1][whole]]]) if len(nodes) else ends_2P


def _linked(ends_2P: Rows, code_N: Rows) -> Rows:
    """Codes of which those are one that have a pair, directly or through others."""
    size = int(code_N.max(initial=-1)) + 1
    links = scipy.sparse.coo_array((np.ones(ends_2P.shape[1]), tuple(ends_2P)), shape=(size, size))
    return scipy.sparse.csgraph.connected_components(links, directed=False)[1][code_N].astype(np.int64)


@dataclass(frozen=True)
class Both:
    """Thumbnails and features of all images, whitened, and from which cosines on two are near."""

    pixels_NR: Floats
    features_NR: Floats
    near_pixels: float
    near_features: float

    def near(self, down: slice, across: slice) -> pd.DataFrame:
        """The near ones among all pairs of these rows, each once."""
        by_pixels = self.pixels_NR[down] @ self.pixels_NR[across].T
        by_features = self.features_NR[down] @ self.features_NR[across].T
        reach = 0.1**PLACES  # only what may be near is rounded
        i, j = np.nonzero((by_pixels >= self.near_pixels - reach) | (by_features >= self.near_features - reach))
        once = down.start + i < across.start + j
        i, j = i[once], j[once]
        return self._listed(down.start + i, across.start + j, by_pixels[i, j], by_features[i, j])

    def check(self, first: Rows, second: Rows) -> pd.DataFrame:
        """The near ones among these pairs."""
        return self._listed(
            first, second, _cosines(self.pixels_NR, first, second), _cosines(self.features_NR, first, second)
        )

    def _listed(self, first: Rows, second: Rows, by_pixels: Floats, by_features: Floats) -> pd.DataFrame:
        pixels, features = by_pixels.round(PLACES), by_features.round(PLACES)
        near = (pixels >= self.near_pixels) | (features >= self.near_features)
        columns = {"first": first, "second": second, "cosine_pixels": pixels, "cosine_features": features}
        return pd.DataFrame(columns)[near].reset_index(drop=True)


def _cosines(rows_NR: Floats, first: Rows, second: Rows) -> Floats:
    """Of pairs of rows, (P,)."""
    cosine_P = np.empty(len(first), np.float32)
    for part in blocks(len(first)):
        cosine_P[part] = np.einsum("pr,pr->p", rows_NR[first[part]], rows_NR[second[part]])
    return cosine_P


def _all(rows: Both, n: int) -> Iterator[Iterator[pd.DataFrame]]:
    """The near pairs of each block of `DOWN` rows with itself and with the later ones."""
    for down in blocks(n, DOWN):
        yield (rows.near(down, across) for across in blocks(n, ACROSS) if across.stop > down.start)


def _proposed(rows: Both, n: int) -> Iterator[Iterator[pd.DataFrame]]:
    """The near pairs of each block of `DOWN` rows with itself, and those with the earlier ones that the indexes
    propose."""
    made = [
        (rows.pixels_NR, Index(rows.pixels_NR), rows.near_pixels),
        (rows.features_NR, Index(rows.features_NR), rows.near_features),
    ]

    for down in blocks(n, DOWN):
        yield chain((rows.near(down, down),), (rows.check(*pairs) for pairs in _earlier(made, down)))
        for rows_NR, index, _ in made:
            index.add(rows_NR[down])


def _earlier(made: list[tuple[Floats, Index, float]], down: slice) -> Iterator[tuple[Rows, Rows]]:
    """(earlier rows, rows of `down`), each pair once, that any of the indexes proposes; at most some `MOST` at a time.

    Args:
        made: rows, the index of the earlier ones, and from which cosine on they are near.
    """
    held, n = [np.empty(0, np.int64)], max(1, down.start)
    for part in blocks(down.stop - down.start, at_once(n)):
        first = down.start + part.start
        found = (index.near(rows_NR[first : down.start + part.stop], near) for rows_NR, index, near in made)
        held.append(np.unique(np.concatenate([(first + place_P) * n + row_P for place_P, row_P in found])))
        if sum(map(len, held)) > MOST:
            yield _pairs(held, n)
            held = held[:1]
    yield _pairs(held, n)


def _pairs(codes: list[Rows], n: int) -> tuple[Rows, Rows]:
    second, first = np.divmod(np.concatenate(codes), n)
    return first, second


def _believed(
    pairs: pd.DataFrame, near_pixels: float, believed: Callable[[Rows, Rows], npt.NDArray[np.bool_]]
) -> npt.NDArray[np.bool_]:
    kept = pairs["cosine_pixels"].to_numpy() >= near_pixels
    alone = pairs[~kept]
    kept[~kept] = believed(alone["first"].to_numpy(), alone["second"].to_numpy())
    return kept


def _earlier_first(pairs: pd.DataFrame, rank_N: npt.NDArray[np.int64]) -> pd.DataFrame:
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    turned = rank_N[first] > rank_N[second]
    return pairs.assign(first=np.where(turned, second, first), second=np.where(turned, first, second))


def _most_alike(found: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """The same, without those that are too many."""
    if sum(map(len, found)) <= MOST:
        return found
    pairs = pd.concat(found)
    nearest = np.argsort(-_likeness(pairs), kind="stable")[:MOST]
    return [pairs.iloc[np.sort(nearest)]]


def _likeness(pairs: pd.DataFrame) -> Floats:
    return np.maximum(pairs["cosine_pixels"].to_numpy(), pairs["cosine_features"].to_numpy())
