"""Pairs of images that are the same picture: saved again, resized, retouched, or consecutive frames.

Two cosines decide, each of whitened rows (see `whitened`):

- of thumbnails (see `thumbnails`): finds JPEG of quality 50 to 95 and 0.75 to 1.25 times the size;
- of features: also finds mirrored and cropped photographs; only if the thumbnails are not dissimilar.

The documentation has the measurements. A threshold for the features alone does not work: for images of 28 or 100 pixels
a side, a copy in JPEG 50 has features farther from those of its original than other images have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # loads its parts, up to half a second each, when they are first used

from ..common.core.blocks import blocks
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Floats, Rows
from ..common.data.manifest import SPLITS

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
        return pack.index[["image_id", "path", "split"]].astype(str)[self.leaked_N].reset_index(drop=True)

    def conflicts(self, pack: FeatureSet) -> pd.DataFrame:
        """Pairs of training and validation images under different labels: `COLUMNS`."""
        split, label = self._both(pack, "split"), self._both(pack, "label")
        of_classes = len(pack.classes) > 0  # numbers of regression that differ a little do not conflict
        return self._table(pack, (split != "test").all(axis=0) & (label[0] != label[1]) & of_classes)

    def _both(self, pack: FeatureSet, column: str) -> npt.NDArray[np.object_]:
        """(2, pairs): the values of the first and of the second image."""
        values = pack.index[column].astype(str).to_numpy(object)
        return np.stack([values[self.pairs[side]] for side in ("first", "second")])

    def _table(self, pack: FeatureSet, chosen: npt.NDArray[np.bool_]) -> pd.DataFrame:
        pairs = self.pairs[chosen]
        facts = pack.index[["image_id", "path", "split", "label"]].astype(str)
        first = facts.iloc[pairs["first"]].reset_index(drop=True)
        second = facts.iloc[pairs["second"]].reset_index(drop=True).add_prefix("other_")
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
    with progress("audit: comparing", n) as bar:
        for down in blocks(n, DOWN):
            for across in blocks(n, ACROSS):
                if across.stop <= down.start:
                    continue  # each pair once
                pairs = _near(pixels_NR, features_NR, down, across, near_pixels, near_features)
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
            bar.add(down.stop - down.start)
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


def _near(
    pixels_NR: Floats, features_NR: Floats, down: slice, across: slice, near_pixels: float, near_features: float
) -> pd.DataFrame:
    by_pixels = pixels_NR[down] @ pixels_NR[across].T
    by_features = features_NR[down] @ features_NR[across].T
    reach = 0.1**PLACES  # only what may be near is rounded
    i, j = np.nonzero((by_pixels >= near_pixels - reach) | (by_features >= near_features - reach))
    pixels, features = by_pixels[i, j].round(PLACES), by_features[i, j].round(PLACES)
    near = (pixels >= near_pixels) | (features >= near_features)
    chosen = near & (down.start + i < across.start + j)
    i, j, pixels, features = i[chosen], j[chosen], pixels[chosen], features[chosen]
    return pd.DataFrame(
        {
            "first": down.start + i,
            "second": across.start + j,
            "cosine_pixels": pixels,
            "cosine_features": features,
        }
    )


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
