"""Features in two dimensions, so that neighbours there are neighbours here: t-SNE. N images, R axes."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from ..common.data.feature_set import Floats

PERPLEXITY = 30.0
"""About how many neighbours an image should be near."""

ITERATIONS = 500
"""1,000 take twice as long and keep no more neighbours."""

FEWEST = 5
"""Fewer images have no neighbourhoods to keep."""


def embed(rows_NR: Floats) -> Floats:
    """Places of shape (N, 2); the same for the same rows.

    The start is the two largest principal axes, which keeps the large-scale order of the classes (Kobak and Berens
    2019). One thread: sums in another order would give another map.
    """
    from sklearn.manifold import TSNE  # takes 0.7 s to import

    n = len(rows_NR)
    with threadpool_limits(1):
        start_N2 = _principal(rows_NR)
        if n < FEWEST:
            return start_N2
        perplexity = min(PERPLEXITY, (n - 1) / 3)
        method = TSNE(2, perplexity=perplexity, init=1e-4 * start_N2, max_iter=ITERATIONS, random_state=0, n_jobs=1)
        return np.asarray(method.fit_transform(rows_NR), np.float32)


def _principal(rows_NR: Floats) -> Floats:
    """Along the two largest principal axes, (N, 2), with a standard deviation of 1 along the first."""
    turned, size, _ = np.linalg.svd((rows_NR - rows_NR.mean(axis=0)).astype(np.float64), full_matrices=False)
    places_N2 = np.zeros((len(rows_NR), 2))
    places_N2[:, : len(size[:2])] = turned[:, :2] * size[:2]
    return (places_N2 / max(float(places_N2[:, 0].std()), 1e-12)).astype(np.float32)
