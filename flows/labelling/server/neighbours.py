"""The images of the data that are most like another one, by features. N images, D features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import FeatureSet, read_feature_set
from graft.tasks.common.data.parts import Stored
from graft.tasks.common.feature_cache.segments import Dtype, FeatureCache, ids_of
from graft.tasks.common.heads.base import unit_length

Single = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """Attributes:
    features_ND: memory-mapped; read block by block for each question, which takes a tenth of a second for 100,000.
    image_ids: of the same images.
    centre_D: the mean.
    caches: of the backbones, side by side D columns.
    """

    features_ND: Stored
    image_ids: list[str]
    centre_D: Single
    caches: tuple[FeatureCache, ...]

    @classmethod
    def of(cls, paths: Paths) -> Neighbours | None:
        """None before the first run."""
        if not (paths.features / "fingerprint.json").is_file():
            return None
        pack = read_feature_set(paths.features)
        total_D = np.zeros(pack.stored_ND.shape[1])
        for rows in blocks(len(pack.stored_ND)):
            total_D += pack.stored_ND[rows].sum(axis=0, dtype=np.float64)
        centre_D = (total_D / len(pack.stored_ND)).astype(np.float32)
        caches = tuple(_cache(digest, dimension, pack, paths) for digest, dimension in _eyes(pack))
        return cls(pack.stored_ND, list(pack.index["image_id"]), centre_D, caches)

    def __call__(self, image_id: str, count: int) -> list[tuple[str, float]]:
        """Image ids and cosines, the nearest first; empty for an image whose features are not cached."""
        own_D = self._features(image_id)
        if own_D is None:
            return []
        cosine_N = np.empty(len(self.image_ids), np.float32)
        for rows in blocks(len(cosine_N)):
            cosine_N[rows] = unit_length(self.features_ND[rows].astype(np.float32) - self.centre_D) @ own_D
        order = np.argsort(-cosine_N, kind="stable")[: count + 1]
        found = [(self.image_ids[n], round(float(cosine_N[n]), 3)) for n in order if self.image_ids[n] != image_id]
        return found[:count]

    def _features(self, image_id: str) -> Single | None:
        ids = ids_of([image_id])
        blocks = [next((block for _, block in cache.read(ids)), None) for cache in self.caches]
        known = [block for block in blocks if block is not None]
        if len(known) < len(blocks):
            return None
        return unit_length(np.concatenate(known, axis=1).astype(np.float32) - self.centre_D)[0]


def _eyes(pack: FeatureSet) -> list[tuple[str, int]]:
    return [(str(eye.fingerprint["digest"]), int(eye.fingerprint["dimension"])) for eye in pack.eyes]


def _cache(digest: str, dimension: int, pack: FeatureSet, paths: Paths) -> FeatureCache:
    dtype: Dtype = "float16" if pack.stored_ND.dtype == np.float16 else "float32"
    return FeatureCache(paths.cache / "features" / digest, dimension, dtype)
