"""features: every image of the manifest through the frozen backbone, once."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.graph import Graph, backbone_graph
from ..common.backbones.weights import find_weights
from ..common.cache import FeatureCache
from ..common.engine import BATCH, Engine, Precision, choose_precision
from ..common.files import whole_folder, write_json
from ..common.images import load
from ..common.manifest import read_manifest, write_table
from ..common.paths import Paths
from ..common.progress import progress, say
from ..common.record import DatasetRecord, Record
from .params import FeaturesParams

EXTRACTOR = 1
"""Raised whenever a change in the code makes other features of the same image."""


def run(params: FeaturesParams, paths: Paths) -> Record:
    """Looks every image up in the cache, computes what is missing, writes one pack in the manifest's order.

    Raises:
        ParamsError: no such backbone.
        WeightsError: no weights, or another network's.
        DataError: an image is gone or damaged since it was checked.
    """
    manifest = read_manifest(paths.manifest)
    source = find_weights(params.backbone, params.weights, paths.weights, params.weights_sha256)
    graph = backbone_graph(params.backbone, source, paths.cache)
    first = manifest["path"].head(BATCH)
    precision, why = choose_precision(
        graph.xml, params.precision, lambda: [load(paths.raw / p, graph.spec.transform) for p in first]
    )
    fingerprint = _fingerprint(graph, precision)
    digest = _digest(fingerprint)

    started = time.perf_counter()
    with FeatureCache(paths.cache / "features" / digest, graph.spec.dimension) as cache:
        missing = manifest[[image_id not in cache for image_id in manifest["image_id"]]].drop_duplicates("image_id")
        say(f"features: {params.backbone}, {precision}; {len(missing):,} of {len(manifest):,} images are new")
        _extract(missing, paths.raw, graph, precision, params.threads or None, cache)
        cache.flush()
        seconds = time.perf_counter() - started
        features = _write(manifest, cache, {**fingerprint, "digest": digest}, paths.features)
    return _record(
        manifest, missing, features, seconds, paths, {"fingerprint": digest, "precision": f"{precision} ({why})"}, graph
    )


def _extract(
    images: pd.DataFrame, raw: Path, graph: Graph, precision: Precision, threads: int | None, cache: FeatureCache
) -> None:
    if images.empty:
        return
    files, ids = list(images["path"]), list(images["image_id"])
    engine = Engine(graph.xml, precision)
    with progress("features: extracting", len(files)) as bar:
        for start, batch_BD in engine.stream(lambda i: load(raw / files[i], graph.spec.transform), len(files), threads):
            for place, row_D in enumerate(batch_BD):
                cache.add(ids[start + place], row_D)
            bar.add(len(batch_BD))


def _fingerprint(graph: Graph, precision: Precision) -> dict[str, Any]:
    """All that decides what the features of an image are."""
    return {
        **asdict(graph.spec),
        "engine": "openvino",
        "precision": precision,
        "decoder": f"pillow {version('pillow')}",
        "extractor": EXTRACTOR,
    }


def _digest(fingerprint: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:32]


def _write(
    manifest: pd.DataFrame, cache: FeatureCache, fingerprint: dict[str, Any], target: Path
) -> npt.NDArray[np.float32]:
    """features.npy (float32, N x D, the manifest's order), index.parquet (what the rows are), fingerprint.json."""
    with whole_folder(target) as folder:
        shape = (len(manifest), cache.dimension)
        pack_ND = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float32, shape=shape)
        for row, image_id in enumerate(manifest["image_id"]):
            pack_ND[row] = cache[image_id]
        pack_ND.flush()
        write_table(manifest[["image_id", "path", "label", "split", "group", "weight"]], folder / "index.parquet")
        write_json(folder / "fingerprint.json", fingerprint)
    return np.load(target / "features.npy", mmap_mode="r")


def _record(
    manifest: pd.DataFrame,
    missing: pd.DataFrame,
    features_ND: npt.NDArray[np.float32],
    seconds: float,
    paths: Paths,
    facts: dict[str, str],
    graph: Graph,
) -> Record:
    spread_D = features_ND.std(axis=0)
    metrics: dict[str, Any] = {
        "images": len(manifest),
        "dimension": graph.spec.dimension,
        "images_per_second": len(missing) / seconds if len(missing) else 0.0,
        "cache_hits": len(manifest) - len(missing),
        "cache_misses": len(missing),
        "mean": float(features_ND.mean()),
        "std": float(features_ND.std()),
        "dead_features": int((spread_D == 0).sum()),
    }
    facts = {
        **facts,
        "backbone": graph.spec.backbone,
        "weights": graph.spec.weights,
        "weights_sha256": graph.spec.weights_sha256,
    }
    profile = {"images": len(manifest), "dimension": graph.spec.dimension}
    return Record(
        metrics=metrics, facts=facts, files=[paths.features / "fingerprint.json"], dataset=DatasetRecord("raw", profile)
    )
