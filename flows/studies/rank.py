"""`graft rank`: which backbone suits these images. Each candidate's head is evaluated on held-out images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.tasks.common.backbones.catalogue import short_names, timm_name
from graft.tasks.common.backbones.spec import Spec
from graft.tasks.common.backbones.weights import at_hand
from graft.tasks.common.core.errors import DataError, GraftError, ParamsError
from graft.tasks.common.core.files import write_shared_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.data.feature_set import INDEX, FeatureSet
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.data.matrix import spread
from graft.tasks.common.data.units import units_of
from graft.tasks.common.feature_cache.segments import FeatureCache, Ids, ids_of
from graft.tasks.common.images.decode import Pixels
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load
from graft.tasks.features.extractor import SAMPLE, choose_extractor
from graft.tasks.features.params import FeaturesParams
from graft.tasks.head.selection import choose, hold_out
from graft.tasks.studies.held import Held
from graft.tasks.studies.ranking import Probed, rank

from ..maintenance.feature_cache import not_collected
from ..runtime.params import Params, load_params
from ..tracking.tracker import Tracker
from ..versioning import dvc
from .entrant import Entrant
from .rank_record import document, record, write
from .shared_decode import Job, extract, measure, read
from .study import metric_of_studies

KINDS = ("auto", "package", "hub", "keras", "random")
"""Values of `--weights`; a file would fit one candidate only."""


@dataclass(frozen=True)
class Images:
    """The N training and validation images; the test split is not read.

    Attributes:
        index: their rows of the manifest.
        ids: (N,) their keys in the feature cache.
        files: their places on disk.
        reading: how the files are read.
    """

    index: pd.DataFrame
    ids: Ids
    files: list[Path]
    reading: Reading

    def counts(self) -> dict[str, int]:
        return {split: int((self.index["split"] == split).sum()) for split in ("train", "val")}

    def sample(self) -> list[Path]:
        """`SAMPLE` files from across the data, to compare precisions, and to measure speed if fewer were computed."""
        return [self.files[row] for row in spread(len(self.files), SAMPLE)]


def rank_backbones(
    root: Path, names: Sequence[str], weights: str | None, metric: str | None = None, margin: float | None = None
) -> dict[str, Any]:
    """Ranks the named backbones, or all whose weights are on this machine.

    Args:
        metric: a metric of the task; the default is that of `gate.metric`.
        margin: the difference that would not matter; the default is `gate.margin`.

    Returns:
        What `rank.json` holds.

    Raises:
        ParamsError: metric, margin or weights are not valid.
        GraftError: no candidate could be ranked, or something that all of them need is missing.
    """
    paths = Paths(root)
    settings = load_params(paths.params)
    key = metric_of_studies(metric, settings)
    if margin is not None and not margin >= 0:
        raise ParamsError("--margin", got=margin, allowed="0 or more, in units of the metric", todo="correct it")
    candidates = list_candidates(names, weights, settings.features, paths.weights)
    tracker = Tracker(root)  # first: a server that does not answer must be noticed at once
    dvc.repro_preprocess(root)
    images = read_images(paths)
    held = held_out(images, settings, key, settings.gate.margin if margin is None else margin)
    failed: dict[str, str] = {}
    with not_collected(root), tracker.recorded("rank") as run_id:
        entrants = _open(candidates, images, paths, failed)
        _compute(entrants, images, settings.features.threads)
        standings = rank(list(_probe(entrants, images, settings, held, failed)), held)
        found = document(standings, held, entrants, failed, images.counts(), settings, paths, run_id)
        write(found, standings, held, paths)
        record(tracker, found, candidates, settings.head, paths)
        if not standings:
            raise GraftError(
                "no candidate could be ranked",
                got="; ".join(f"{name}: {reason}" for name, reason in failed.items()),
                todo="fix the first problem, or name other backbones",
            )
    return found


def list_candidates(
    names: Sequence[str], weights: str | None, own: FeaturesParams, folder: Path
) -> dict[str, FeaturesParams]:
    """Name -> parameters. The project's own backbone keeps its own weights unless others are asked for.

    Raises:
        ParamsError: `weights` is not a known kind, or no backbone is named with it.
    """
    if weights is not None and weights not in KINDS:
        raise ParamsError("--weights", got=weights, allowed=" | ".join(KINDS), todo="name one of these")
    if weights is not None and not names:
        raise ParamsError("--weights needs named backbones", todo="name them: graft rank ResNet50 VGG16")
    mine = {one.eye.backbone: one for one in own.eyes}
    known = names or [*mine, *short_names()]
    found: dict[str, FeaturesParams] = {}
    for name in known:
        if any(_same(name, other) for other in found):
            continue
        same = next((one for other, one in mine.items() if _same(name, other)), None)
        if same is not None:
            found[name] = same.model_copy(update=_weights(weights) if weights else {})
        elif names or at_hand(timm_name(name, "auto"), folder) is not None:
            other = {"backbone": name, **_weights(weights or "auto")}
            found[name] = own.eyes[0].model_copy(update=other)
    return found


def _weights(kind: str) -> dict[str, Any]:
    return {"weights": kind, "weights_sha256": None}


def _same(name: str, other: str) -> bool:
    return timm_name(name, "auto") == timm_name(other, "auto")


def read_images(paths: Paths) -> Images:
    """Raises:
    DataError: there are no images to learn from, or none to validate on.
    """
    manifest = read_manifest(paths.manifest, INDEX)
    index = manifest[manifest["split"].isin(["train", "val"])].reset_index(drop=True)
    images = Images(
        index,
        ids_of(list(index["image_id"])),
        [paths.raw / path for path in index["path"]],
        Reading.load(paths.manifest),
    )
    if not all(images.counts().values()):
        raise DataError(
            "a ranking needs training and validation images",
            got=", ".join(f"{count} in {split}" for split, count in images.counts().items()),
            todo="import more images",
        )
    return images


def held_out(images: Images, settings: Params, metric: str, margin: float) -> Held:
    """The images on which the stage `head` would compare heads."""
    bare = FeatureSet(np.empty((len(images.index), 0), np.float32), np.empty((0, 0), np.float32), images.index, {})
    rows = hold_out(bare, settings.head)[0]
    unit_M = units_of(bare, rows)[0]
    return Held(bare.targets(rows), unit_M, bare.task, metric, settings.evaluate.confidence, margin)


def _open(
    candidates: dict[str, FeaturesParams], images: Images, paths: Paths, failed: dict[str, str]
) -> dict[str, Entrant]:
    """Finds weights and converts networks; a candidate that fails is put into `failed` with the reason."""
    entrants: dict[str, Entrant] = {}
    for name, params in candidates.items():
        try:
            entrant = _enter(params, images, paths)
        except Exception as error:  # noqa: BLE001  (one candidate's error is reported and must not stop the others)
            _fail(name, error, failed)
            continue
        twin = next((other for other, one in entrants.items() if one.network == entrant.network), None)
        if twin is None:
            entrants[name] = entrant
            write_shared_json(entrant.job.cache.folder / "fingerprint.json", entrant.fingerprint)
        else:
            say(f"rank: {name} is the same network as {twin}, which is already ranked")
    return entrants


def _enter(params: FeaturesParams, images: Images, paths: Paths) -> Entrant:
    def sample(spec: Spec) -> list[Pixels]:
        return [load(file, None, spec.transform, images.reading) for file in images.sample()]

    extractor = choose_extractor(params, images.reading.channels, paths, sample)
    fingerprint = extractor.fingerprint(params.dtype, images.reading.span)
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], extractor.spec.dimension, params.dtype)
    return Entrant(params, Job(extractor, cache), fingerprint)


def _fail(name: str, error: Exception, failed: dict[str, str]) -> None:
    reason = [error.what, error.got] if isinstance(error, GraftError) else [f"{type(error).__name__}: {error}"]
    failed[name] = ": ".join(str(part) for part in reason if part is not None)
    say(f"rank: {name} is left out: {failed[name]}")


def _compute(entrants: dict[str, Entrant], images: Images, threads: int) -> None:
    """One pass for features that are not cached, and one over a sample for candidates whose speed is not yet known."""
    jobs = [entrant.job for entrant in entrants.values()]
    extract(jobs, images.ids, images.files, images.reading, threads)
    unmeasured = [job for job in jobs if job.failure is None and job.cost.images < min(SAMPLE, len(images.files))]
    measure(unmeasured, images.sample(), images.reading, threads)


def _probe(
    entrants: dict[str, Entrant], images: Images, settings: Params, held: Held, failed: dict[str, str]
) -> Iterator[Probed]:
    """Each candidate's head, as the stage `head` would choose it."""
    if settings.features.views:
        say("rank: augmented views are ignored; the heads are trained on the images themselves")
    for name, entrant in entrants.items():
        try:
            yield _probed(name, entrant, images, settings, held)
        except Exception as error:  # noqa: BLE001  (one candidate's error is reported and must not stop the others)
            _fail(name, error, failed)


def _probed(name: str, entrant: Entrant, images: Images, settings: Params, held: Held) -> Probed:
    job, spec = entrant.job, entrant.spec
    if job.failure is not None:
        raise job.failure
    features_ND = read(job, images.ids, images.files, images.reading, settings.features.threads)
    pack = FeatureSet(features_ND, np.empty((0, spec.dimension), features_ND.dtype), images.index, {})
    choice = choose(pack, settings.head)
    chosen = choice.found.chosen
    value, low, high = held.score(choice.found.output)
    where = "a sample of " if job.cost.sampled else ""
    return Probed(
        name=name,
        output_MK=choice.found.output,
        value=value,
        low=low,
        high=high,
        loss=chosen.score.loss,
        settings=chosen.settings,
        images_per_second=job.cost.images_per_second(job.extractor.device),
        measured=f"{where}{job.cost.images:,} images in this run",
        megabytes=4 * spec.parameters / 1e6,
        dimension=spec.dimension,
    )
