"""An index of many rows that proposes which are close to others. N rows, R columns, B asked at a time.

To compare all rows with all takes N^2 R products: a minute for 60,000 rows on two cores, three hours for a million. An
inverted file (Sivic and Zisserman 2003) sorts rows into cells around sqrt(N) centres, and compares a row with those of
the nearest cells alone. It may miss a pair that lies in two distant cells; it proposes, and the caller computes the
cosines of what it proposes from the rows themselves, so that all that is reported is exact. Rows are kept in a byte a
column, which moves cosines by less than `SLACK`: so much more is proposed.

faiss (Douze et al. 2024) does it; the extra `neighbours` installs it. Without it, everything is compared with
everything.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..core.cores import cores
from ..core.progress import say
from ..data.matrix import Matrix, spread

if TYPE_CHECKING:
    from faiss import IndexIVFScalarQuantizer

Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

EXACT = 50_000
"""Rows up to which everything is compared with everything."""

CENTRES, SAMPLE = 2, 64
"""Centres for each square root of N, and rows for each centre from which they are found."""

PROBES = 16
"""Cells that a row is compared with."""

SLACK = 0.01
"""By how much a cosine of rows that are kept in bytes may differ."""

PROPOSED = 2**24
"""Pairs that an index may propose at a time: all of a million rows may be close to each that is asked about."""


def is_large(n: int) -> bool:
    """Whether an index is worth it, and faiss is installed."""
    return n > EXACT and find_spec("faiss") is not None


def recommend(n: int, what: str) -> None:
    """Says what an index would bring, if it is worth it and there is none.

    Args:
        what: the work, for the message.
    """
    if n > EXACT and not is_large(n):
        say(f"{what}: comparing {n:,} images with each other takes minutes or hours; "
            "an index takes a small part of it: pip install 'graft[neighbours]'")  # fmt: skip


def at_once(n: int) -> int:
    """How many rows to ask an index of n rows about at a time."""
    return max(1, PROPOSED // max(1, n))


class Index:
    """Rows of length one, numbered in the order in which they are added.

    Args:
        rows_NR: the centres are found from a sample of them; none of them is in the index yet.
    """

    def __init__(self, rows_NR: Matrix) -> None:
        self._faiss = _faiss()
        n, r = rows_NR.shape
        centres = max(1, min(int(CENTRES * n**0.5), n // 2))
        quantizer = self._faiss.IndexFlatIP(r)
        self._index: IndexIVFScalarQuantizer = self._faiss.IndexIVFScalarQuantizer(
            quantizer, r, centres, self._faiss.ScalarQuantizer.QT_8bit, self._faiss.METRIC_INNER_PRODUCT, False
        )
        self._index.cp.spherical = True
        self._index.cp.min_points_per_centroid = 1
        self._index.nprobe = PROBES
        self._index.train(_some(rows_NR, SAMPLE * centres))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, rows_BR: Singles) -> None:
        """Adds the next rows."""
        self._index.add(np.ascontiguousarray(rows_BR, np.float32))

    def near(self, asked_BR: Singles, least: float) -> tuple[Rows, Rows]:
        """(places in `asked`, numbers of rows), both (P,), in any order: pairs that may have a cosine of `least`."""
        if not len(self):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        limit_B, _, row_P = self._index.range_search(np.ascontiguousarray(asked_BR, np.float32), least - SLACK)
        place_P = np.repeat(np.arange(len(asked_BR)), limit_B[1:].astype(np.int64) - limit_B[:-1].astype(np.int64))
        return place_P, row_P.astype(np.int64, copy=False)

    def nearest(self, asked_BR: Singles, k: int) -> Rows:
        """(B, k), the numbers of rows that are probably the nearest, in order; -1 where there are fewer."""
        return np.sort(self._index.search(np.ascontiguousarray(asked_BR, np.float32), k)[1], axis=1)


def _faiss() -> Any:
    """Takes 0.2 s to import."""
    import faiss

    faiss.omp_set_num_threads(cores())
    return faiss


def _some(rows_NR: Matrix, most: int) -> Singles:
    """At most `most` rows, evenly from the first to the last."""
    n, r = rows_NR.shape
    places = spread(n, most)
    some_MR = np.empty((len(places), r), np.float32)
    for i, place in enumerate(places.tolist()):
        some_MR[i] = rows_NR[place : place + 1][0]
    return some_MR
