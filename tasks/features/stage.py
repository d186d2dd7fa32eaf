"""features: every image of the manifest through the frozen backbone, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.licences import is_non_commercial, licence_of, named
from ..common.backbones.spec import Spec
from ..common.core.files import whole_folder, write_json, write_shared_json
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import DatasetRecord, Record
from ..common.data.eyes import backbones, eyes_of, join
from ..common.data.feature_set import INDEX, RowFile
from ..common.data.manifest import read_manifest, task_of
from ..common.data.matrix import spread
from ..common.feature_cache.segments import FeatureCache
from ..common.feature_cache.thumbnails import thumbnail_cache
from ..common.images.decode import Pixels
from ..common.images.reading import Reading
from ..common.images.transform import load
from ..common.maps.form import Wanted
from ..common.maps.graph import MAPS
from ..common.maps.keep import check_room
from .extractor import SAMPLE, choose_extractor
from .maps import map_extractor, shown, targets_of, wanted
from .pack import create_files
from .params import FeaturesParams
from .runners.local import extract
from .sight import Unseen, cost, unseen
from .views import Items, list_items
from .work import Effort, Eye, Mask, Runner, Source


def run(params: FeaturesParams, paths: Paths, runner: Runner = extract) -> Record:
    """Looks up every image in the cache, computes what is missing, and writes one feature set in the manifest's order.

    Args:
        runner: computes what is missing; by default this process.

    Raises:
        ParamsError: a backbone is unknown, or does not take images of this size or number of channels.
        WeightsError: the weights are missing, or belong to another network.
        DataError: an image has been removed, changed or damaged since it was checked.
    """
    manifest = read_manifest(paths.manifest, INDEX)
    task, reading = task_of(manifest), Reading.load(paths.manifest)
    params, maps = shown(params, task), wanted(params, task)
    eyes = [_open(one, reading, manifest, paths) for one in params.eyes]
    maps_eye = [_open_maps(eyes[0], maps, reading, paths)] if maps else []
    fingerprint = join([eye.fingerprint for eye in eyes])
    if maps_eye:
        fingerprint = {**fingerprint, "maps": maps_eye[0].fingerprint}
    _warn_of_licences(eyes)
    hidden = _hidden(eyes, paths)
    items = list_items(manifest, params)
    source = Source(manifest, items, params, paths.raw, reading, thumbnail_cache(paths, reading))

    effort = Effort()
    _extract_together([*eyes, *maps_eye], source, effort, paths, runner)
    dimension = sum(eye.spec.dimension for eye in eyes)
    with whole_folder(paths.features) as folder:
        files = create_files(folder, manifest, items, dimension, params.dtype, paths.raw)
        for eye, part in zip(eyes, eyes_of(fingerprint, dimension), strict=True):
            fill(files, part.columns, eye, source, effort, runner)
        write_json(folder / "fingerprint.json", fingerprint)
        if task == "reconstruction":
            write_json(folder / "targets.json", targets_of(manifest, paths.raw))
        reading.save(folder)
    return _record(eyes, maps_eye, source, effort, files[0], fingerprint["digest"], hidden, paths)


def _open(params: FeaturesParams, reading: Reading, manifest: pd.DataFrame, paths: Paths) -> Eye:
    def sample(spec: Spec) -> Sequence[Pixels]:
        return _sample(manifest, spec, paths.raw, reading)

    extractor = choose_extractor(params, reading.channels, paths, sample)
    licence = licence_of(extractor.spec.backbone, extractor.spec.weights, paths.cache)
    fingerprint = {
        **extractor.fingerprint(params.dtype, reading.span),
        **({"licence": named(licence)} if licence else {}),
    }
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], extractor.spec.dimension, params.dtype)
    write_shared_json(cache.folder / "fingerprint.json", fingerprint)  # also says when it was last used
    return Eye(extractor, fingerprint, cache)


def _open_maps(eye: Eye, maps: Wanted, reading: Reading, paths: Paths) -> Eye:
    """Of the backbone of `eye`."""
    extractor, form = map_extractor(eye.extractor, maps, paths)
    facts = {**form.as_dict(), "wanted": asdict(maps), "version": MAPS}
    fingerprint = extractor.fingerprint("float16", reading.span, maps=facts)
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], form.dimension, "float16")
    write_shared_json(cache.folder / "fingerprint.json", fingerprint)
    return Eye(extractor, fingerprint, cache, form)


def _extract_together(eyes: list[Eye], source: Source, effort: Effort, paths: Paths, runner: Runner) -> None:
    """What several backbones lack, and the maps, in one pass; what one backbone lacks, `fill` computes."""
    items = source.items
    absent_EM = np.array([~eye.cache.has(items.ids) for eye in eyes]) & _is_first(items)
    for eye, absent_M in zip(eyes, absent_EM, strict=True):
        if eye.form:
            absent_M &= items.numbers == 0
            missing = int(np.count_nonzero(absent_M))
            check_room(paths, missing * eye.form.bytes, missing)
    if len(eyes) > 1 and absent_EM.any():
        runner(eyes, absent_EM, source, effort)


def _hidden(eyes: Sequence[Eye], paths: Paths) -> Unseen:
    """What the backbones do not see; says so, and what their input costs."""
    hidden = unseen(read_manifest(paths.manifest, ["width", "height"]), [eye.spec.transform for eye in eyes])
    for note in dict.fromkeys([hidden.advice(), *(cost(eye.spec) for eye in eyes)]):
        if note:
            say(note)
    return hidden


def _warn_of_licences(eyes: Sequence[Eye]) -> None:
    """Once for each backbone whose weights exclude commercial use."""
    for backbone, licence in {eye.spec.backbone: eye.fingerprint.get("licence", "") for eye in eyes}.items():
        if is_non_commercial(licence):
            say(f"features: warning: the licence of {backbone} is {licence}; read it before you use the model")


def _sample(manifest: pd.DataFrame, spec: Spec, raw: Path, reading: Reading) -> Sequence[Pixels]:
    """Images spread over the data, on which a faster precision must agree with fp32."""
    shown = manifest.iloc[spread(len(manifest), SAMPLE)]
    return [load(raw / row.path, row.image_id, spec.transform, reading) for row in shown.itertuples()]


def _is_first(items: Items) -> Mask:
    """(M,) whether no item before has the same key."""
    first_M = np.zeros(len(items), np.bool_)
    first_M[np.unique(items.ids, return_index=True)[1]] = True
    return first_M


def fill(
    files: tuple[RowFile, RowFile],
    columns: slice,
    eye: Eye,
    source: Source,
    effort: Effort,
    runner: Runner = extract,
) -> None:
    """Copies every item's features from the cache into its columns of the file of the images or that of the views."""
    items = source.items

    def compute(places: npt.NDArray[np.int64]) -> None:
        wanted_M = np.zeros(len(items), np.bool_)
        wanted_M[places] = True
        runner([eye], wanted_M[None], source, effort)

    for places, block in eye.cache.read_all(items.ids, compute):
        is_view = places >= items.images
        files[0].write(places[~is_view], block[~is_view], columns)
        files[1].write(places[is_view] - items.images, block[is_view], columns)


def _record(
    eyes: Sequence[Eye],
    maps: Sequence[Eye],
    source: Source,
    effort: Effort,
    features: RowFile,
    digest: str,
    hidden: Unseen,
    paths: Paths,
) -> Record:
    images, dimension = source.items.images, sum(eye.spec.dimension for eye in eyes)
    metrics: dict[str, Any] = {
        "images": images,
        "views": source.items.views,
        "dimension": dimension,
        "images_per_second": effort.computed / effort.seconds if effort.computed else 0.0,
        "cache_hits": len(eyes) * len(source.items) - effort.computed,
        "cache_misses": effort.computed,
        "nodes": effort.nodes,
        "mean": features.mean,
        "std": features.std,
        "dead_features": features.constant_columns,
        "unseen": hidden.share,
        "unseen_worst": hidden.worst,
    }
    for eye in maps:
        size = eye.form.bytes if eye.form else 0
        metrics |= {"maps": images, "maps_computed": effort.maps, "map_dimension": eye.spec.dimension}
        metrics |= {"map_megabytes": size / 1e6}
    facts = {
        "fingerprint": digest,
        "engine": _list(f"{eye.extractor.engine} on {eye.extractor.device}" for eye in eyes),
        "precision": _list(f"{eye.extractor.precision} ({eye.extractor.why})" for eye in eyes),
        "backbone": backbones(join([eye.fingerprint for eye in eyes])),
        "weights": _list(eye.spec.weights for eye in eyes),
        "weights_sha256": _list(eye.spec.weights_sha256 for eye in eyes),
    }
    licence = _list(eye.fingerprint["licence"] for eye in eyes if "licence" in eye.fingerprint)
    facts |= {"licence": licence} if licence else {}
    profile = {"images": images, "dimension": dimension}
    return Record(
        metrics=metrics, facts=facts, files=[paths.features / "fingerprint.json"], dataset=DatasetRecord("raw", profile)
    )


def _list(values: Iterable[str]) -> str:
    """Each value once."""
    return ", ".join(dict.fromkeys(values))
