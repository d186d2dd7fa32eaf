"""features: every image of the manifest through the frozen backbone, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.core.files import whole_folder, write_json, write_shared_json
from ..common.core.paths import Paths
from ..common.core.progress import progress, say
from ..common.core.record import DatasetRecord, Record
from ..common.data.feature_set import INDEX, RowFile
from ..common.data.manifest import read_channels, read_manifest, write_table
from ..common.data.matrix import spread
from ..common.feature_cache.segments import FeatureCache
from ..common.feature_cache.thumbnails import thumbnail, thumbnail_cache
from ..common.images.decode import Pixels, decode_bands, still_readable
from ..common.images.transform import load
from .extractor import SAMPLE, Extractor, choose_extractor
from .params import FeaturesParams
from .views import Items, augmentation, list_items


@dataclass
class Effort:
    """What was computed: number of images and views, and seconds from the first file to the last segment on disk."""

    computed: int = 0
    seconds: float = 0.0


def run(params: FeaturesParams, paths: Paths) -> Record:
    """Looks up every image in the cache, computes what is missing, and writes one feature set in the manifest's order.

    Raises:
        ParamsError: the backbone is unknown, or does not take images of this size or number of channels.
        WeightsError: the weights are missing, or belong to another network.
        DataError: an image has been removed or damaged since it was checked.
    """
    manifest = read_manifest(paths.manifest, INDEX)
    channels = read_channels(paths.manifest)
    extractor = choose_extractor(params, channels, paths, lambda spec: _sample(manifest, spec, paths.raw))
    fingerprint = extractor.fingerprint(params.dtype)
    items = list_items(manifest, params)
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], extractor.spec.dimension, params.dtype)
    write_shared_json(cache.folder / "fingerprint.json", fingerprint)  # also says when it was last used

    small = thumbnail_cache(paths, channels)

    effort = Effort()
    with whole_folder(paths.features) as folder:
        shape = (len(manifest), cache.dimension)
        with RowFile(folder / "features.npy", shape, cache.dtype) as features, _views(folder, items, cache) as views:
            _fill(
                [features, views], items, cache,
                lambda places: _extract(places, items, manifest, extractor, params, paths.raw, cache, small, effort),
            )  # fmt: skip
        write_table(manifest, folder / "index.parquet")
        write_json(folder / "fingerprint.json", fingerprint)
    return _record(len(manifest), items, effort, features, extractor, fingerprint["digest"], paths)


def _sample(manifest: pd.DataFrame, spec: Spec, raw: Path) -> Sequence[Pixels]:
    """Images spread over the data, on which a faster precision must agree with fp32."""
    return [load(raw / path, spec.transform) for path in manifest["path"].iloc[spread(len(manifest), SAMPLE)]]


def _views(folder: Path, items: Items, cache: FeatureCache) -> RowFile:
    return RowFile(folder / "views.npy", (items.views, cache.dimension), cache.dtype)


def _fill(
    files: list[RowFile], items: Items, cache: FeatureCache, extract: Callable[[npt.NDArray[np.int64]], None]
) -> None:
    """Copies every item's features from the cache into the file of the images or that of the views."""
    for places, block in cache.read_all(items.ids, extract):
        is_view = places >= items.images
        files[0].write(places[~is_view], block[~is_view])
        files[1].write(places[is_view] - items.images, block[is_view])


def _extract(
    places: npt.NDArray[np.int64],
    items: Items,
    manifest: pd.DataFrame,
    extractor: Extractor,
    params: FeaturesParams,
    raw: Path,
    cache: FeatureCache,
    small: FeatureCache,
    effort: Effort,
) -> None:
    """Computes these items and adds them to the cache, and adds the images' thumbnails, for the audit, to theirs."""
    spec = extractor.spec
    what = f"{spec.backbone}, {extractor.engine} {extractor.precision}"
    say(f"features: {what}; {len(places):,} of {len(items):,} are new")
    paths, image_ids = manifest["path"], manifest["image_id"]
    augment = augmentation(params, spec.transform) if items.views else None

    lacks_small = ~small.has(items.ids[places])
    made: dict[int, npt.NDArray[np.float32]] = {}

    def load_item(i: int) -> Pixels:
        row, view = items.rows[places[i]], items.numbers[places[i]]
        if view != 0 and augment is not None:
            return augment(raw / paths[row], image_ids[row], int(view))
        with still_readable(raw / paths[row]):
            picture = decode_bands(raw / paths[row], spec.transform.channels)
        if lacks_small[i]:
            made[i] = thumbnail(picture)
        return spec.transform(*picture)

    engine = extractor.build()
    started = time.perf_counter()
    with cache, small, progress("features: extracting", len(places)) as bar:
        for start, batch_BD in engine.stream(load_item, len(places), params.threads or None):
            batch = range(start, start + len(batch_BD))
            cache.add(items.ids[places[start : batch.stop]], batch_BD)
            ready = [i for i in batch if i in made]
            if ready:
                small.add(items.ids[places[ready]], np.stack([made.pop(i) for i in ready]))
            bar.add(len(batch_BD))
    cache.refresh()
    effort.seconds += time.perf_counter() - started
    effort.computed += len(places)


def _record(
    images: int, items: Items, effort: Effort, features: RowFile, extractor: Extractor, digest: str, paths: Paths
) -> Record:
    spec = extractor.spec
    metrics: dict[str, Any] = {
        "images": images,
        "views": items.views,
        "dimension": spec.dimension,
        "images_per_second": effort.computed / effort.seconds if effort.computed else 0.0,
        "cache_hits": len(items) - effort.computed,
        "cache_misses": effort.computed,
        "mean": features.mean,
        "std": features.std,
        "dead_features": features.constant_columns,
    }
    facts = {
        "fingerprint": digest,
        "engine": f"{extractor.engine} on {extractor.device}",
        "precision": f"{extractor.precision} ({extractor.why})",
        "backbone": spec.backbone,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
    }
    profile = {"images": images, "dimension": spec.dimension}
    return Record(
        metrics=metrics, facts=facts, files=[paths.features / "fingerprint.json"], dataset=DatasetRecord("raw", profile)
    )
