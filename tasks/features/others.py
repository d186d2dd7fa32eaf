"""Features of images that are not in the data set: of a pool without labels. The same cache, the same fingerprints."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.core.paths import Paths
from ..common.data.eyes import eyes_of, join
from ..common.data.feature_set import RowFile
from ..common.data.matrix import spread
from ..common.data.parts import load_rows
from ..common.feature_cache.segments import FeatureCache
from ..common.feature_cache.thumbnails import thumbnail_cache
from ..common.images.decode import Pixels
from ..common.images.reading import Reading
from ..common.images.transform import load
from .extractor import SAMPLE, choose_extractor
from .params import FeaturesParams
from .stage import fill
from .views import list_items
from .work import Effort, Eye, Source


@dataclass(frozen=True)
class OtherFeatures:
    """Attributes:
    features_ND: memory-mapped, float32 or float16, in the order of the images.
    digest: of the fingerprint, to compare with that of a feature set.
    """

    features_ND: npt.NDArray[Any]
    digest: str


def features_of(
    images: pd.DataFrame, folder: Path, params: FeaturesParams, reading: Reading, paths: Paths
) -> OtherFeatures:
    """Looks up each image in the cache, and computes and caches what is missing.

    Args:
        images: columns `image_id` and `path`, below `folder`.
        reading: how the images are read.

    Raises:
        ParamsError: the backbone is unknown, or does not take such images.
        WeightsError: the weights are missing, or belong to another network.
        DataError: an image is missing, has changed or is damaged.
    """
    manifest = images[["image_id", "path"]].assign(split="").reset_index(drop=True)
    eyes = [_open(one, manifest, folder, reading, paths) for one in params.eyes]
    fingerprint = join([eye.fingerprint for eye in eyes])
    dimension = sum(eye.spec.dimension for eye in eyes)
    source = Source(manifest, list_items(manifest, params), params, folder, reading, thumbnail_cache(paths, reading))
    paths.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.tmp) as place:
        file = Path(place) / "features.npy"
        features = RowFile(file, (len(manifest), dimension), params.dtype)
        views = RowFile(Path(place) / "views.npy", (0, dimension), params.dtype)
        for eye, part in zip(eyes, eyes_of(fingerprint, dimension), strict=True):
            fill((features, views), part.columns, eye, source, Effort())
        stored = load_rows(file)
    return OtherFeatures(stored, str(fingerprint["digest"]))  # the file is removed, and its map lasts


def _open(params: FeaturesParams, manifest: pd.DataFrame, folder: Path, reading: Reading, paths: Paths) -> Eye:
    def sample(spec: Spec) -> Sequence[Pixels]:
        shown = manifest.iloc[spread(len(manifest), SAMPLE)]
        return [load(folder / row.path, row.image_id, spec.transform, reading) for row in shown.itertuples()]

    extractor = choose_extractor(params, reading.channels, paths, sample)
    fingerprint = extractor.fingerprint(params.dtype, reading.span)
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], extractor.spec.dimension, params.dtype)
    return Eye(extractor, fingerprint, cache)
