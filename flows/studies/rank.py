"""`graft rank`: which backbone suits these images. Each candidate's head is evaluated on held-out images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.common.backbones.catalogue import CATALOGUE, timm_name
from tasks.common.backbones.spec import Spec
from tasks.common.backbones.weights import PACKAGES, at_hand
from tasks.common.core.errors import DataError, GraftError, ParamsError
from tasks.common.core.files import whole_folder, write_json, write_shared_json
from tasks.common.core.paths import Paths
from tasks.common.core.progress import say
from tasks.common.core.record import DatasetRecord, Record
from tasks.common.data.feature_set import INDEX, FeatureSet
from tasks.common.data.manifest import read_channels, read_manifest
from tasks.common.data.matrix import spread
from tasks.common.feature_cache.segments import FeatureCache, Ids, ids_of
from tasks.common.images.decode import Pixels
from tasks.common.images.transform import load
from tasks.common.scoring import bootstrap
from tasks.features.extractor import SAMPLE, choose_extractor
from tasks.features.params import FeaturesParams
from tasks.head.params import HeadParams
from tasks.head.selection import choose
from tasks.studies.ranking import Probed, Standing, fastest_as_good, rank
from tasks.studies.ranking_picture import ranking_picture

from ..maintenance.feature_cache import not_collected
from ..runtime import processes
from ..runtime.params import Params, load_params
from ..tracking.tracker import Tracker
from ..versioning import dvc
from .shared_decode import Job, extract, measure, read
from .study import provenance

KINDS = ("auto", "package", "hub", "keras", "random")
"""Values of `--weights`; a file would fit one candidate only."""


@dataclass(frozen=True)
class Images:
    """The N training and validation images; the test split is not read.

    Attributes:
        index: their rows of the manifest.
        ids: (N,) their keys in the feature cache.
        files: their places on disk.
        channels: C, of each image.
    """

    index: pd.DataFrame
    ids: Ids
    files: list[Path]
    channels: int

    def counts(self) -> dict[str, int]:
        return {split: int((self.index["split"] == split).sum()) for split in ("train", "val")}

    def sample(self) -> list[Path]:
        """`SAMPLE` files from across the data, to compare precisions, and to measure speed if fewer were computed."""
        return [self.files[row] for row in spread(len(self.files), SAMPLE)]


@dataclass(frozen=True)
class Entrant:
    """A candidate that can be computed: its parameters (the project's except for backbone and weights), and its job.

    Attributes:
        fingerprint: of its features.
    """

    params: FeaturesParams
    job: Job
    fingerprint: dict[str, Any]

    @property
    def spec(self) -> Spec:
        return self.job.extractor.spec

    @property
    def network(self) -> dict[str, Any]:
        """The fingerprint without what does not change the features: the tag in the name, and the weights' origin."""
        left_out = {"backbone", "weights", "digest"}
        facts = {key: value for key, value in self.fingerprint.items() if key not in left_out}
        return {**facts, "network": self.spec.backbone.split(".")[0]}


def rank_backbones(root: Path, names: Sequence[str], weights: str | None) -> dict[str, Any]:
    """Ranks the named backbones, or all whose weights are on this machine.

    Returns:
        What `rank.json` holds.

    Raises:
        ParamsError: an image's label is not one class.
        GraftError: no candidate could be ranked, or something that all of them need is missing.
    """
    paths = Paths(root)
    settings = load_params(paths.params)
    _refuse_other_tasks(settings.head)
    candidates = list_candidates(names, weights, settings.features, paths.weights)
    tracker = Tracker(root)  # first: a server that does not answer must be noticed at once
    dvc.repro_preprocess(root)
    images = read_images(paths)
    failed: dict[str, str] = {}
    with not_collected(root), tracker.recorded("rank") as run_id:
        entrants = _open(candidates, images, paths, failed)
        _compute(entrants, images, settings.features.threads)
        standings = rank(list(_probe(entrants, images, settings, failed)))
        found = _document(standings, entrants, failed, images, settings, paths, run_id)
        _write(found, standings, settings, paths)
        _record(tracker, found, standings, candidates, settings.head, paths)
        if not standings:
            raise GraftError(
                "no candidate could be ranked",
                got="; ".join(f"{name}: {reason}" for name, reason in failed.items()),
                todo="fix the first problem, or name other backbones",
            )
    return found


def _refuse_other_tasks(head: HeadParams) -> None:
    """McNemar's test compares which images candidates classify correctly, so there must be right and wrong answers."""
    if head.task != "classification":
        raise ParamsError(
            "`graft rank` needs one label per image",
            got=f"head.task: {head.task}",
            allowed="head.task: classification",
            todo="run `graft repro` with each `features.backbone`, and compare with `dvc metrics diff`; "
            "the feature cache keeps the features of each",
        )


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
    known = names or [*mine, *(e.name for e in CATALOGUE), *PACKAGES]
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
        read_channels(paths.manifest),
    )
    if not all(images.counts().values()):
        raise DataError(
            "a ranking needs training and validation images",
            got=", ".join(f"{count} in {split}" for split, count in images.counts().items()),
            todo="import more images",
        )
    return images


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
        return [load(file, spec.transform) for file in images.sample()]

    extractor = choose_extractor(params, images.channels, paths, sample)
    fingerprint = extractor.fingerprint(params.dtype)
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], extractor.spec.dimension, params.dtype)
    return Entrant(params, Job(extractor, cache), fingerprint)


def _fail(name: str, error: Exception, failed: dict[str, str]) -> None:
    reason = [error.what, error.got] if isinstance(error, GraftError) else [f"{type(error).__name__}: {error}"]
    failed[name] = ": ".join(str(part) for part in reason if part is not None)
    say(f"rank: {name} is left out: {failed[name]}")


def _compute(entrants: dict[str, Entrant], images: Images, threads: int) -> None:
    """One pass for features that are not cached, and one over a sample for candidates whose speed is not yet known."""
    jobs = [entrant.job for entrant in entrants.values()]
    extract(jobs, images.ids, images.files, threads)
    unmeasured = [job for job in jobs if job.failure is None and job.cost.images < min(SAMPLE, len(images.files))]
    measure(unmeasured, images.sample(), threads)


def _probe(entrants: dict[str, Entrant], images: Images, settings: Params, failed: dict[str, str]) -> Iterator[Probed]:
    """Each candidate's head, as the stage `head` would choose it."""
    if settings.features.views:
        say("rank: augmented views are ignored; the heads are trained on the images themselves")
    for name, entrant in entrants.items():
        try:
            yield _probed(name, entrant, images, settings)
        except Exception as error:  # noqa: BLE001  (one candidate's error is reported and must not stop the others)
            _fail(name, error, failed)


def _probed(name: str, entrant: Entrant, images: Images, settings: Params) -> Probed:
    job, spec = entrant.job, entrant.spec
    if job.failure is not None:
        raise job.failure
    features_ND = read(job, images.ids, images.files, settings.features.threads)
    pack = FeatureSet(features_ND, np.empty((0, spec.dimension), features_ND.dtype), images.index, {})
    choice = choose(pack, settings.head)
    chosen = choice.found.chosen
    correct_N = choice.found.output.argmax(axis=1) == pack.labels(choice.held)
    how = settings.evaluate
    low, high = bootstrap.bootstrap_interval(correct_N, how.confidence, how.bootstrap, how.seed)
    where = "a sample of " if job.cost.sampled else ""
    return Probed(
        name=name,
        correct_N=correct_N,
        accuracy=float(correct_N.mean()),
        low=low,
        high=high,
        log_loss=chosen.score.loss,
        settings=chosen.settings,
        images_per_second=job.cost.images_per_second(job.extractor.device),
        measured=f"{where}{job.cost.images:,} images in this run",
        megabytes=4 * spec.parameters / 1e6,
        dimension=spec.dimension,
    )


def _document(
    standings: list[Standing],
    entrants: dict[str, Entrant],
    failed: dict[str, str],
    images: Images,
    settings: Params,
    paths: Paths,
    run_id: str,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        **provenance(paths, "rank", run_id),
        "images": images.counts(),
        "held_out": max((len(one.probed.correct_N) for one in standings), default=0),
        "confidence": settings.evaluate.confidence,
        "candidates": [_row(one, entrants[one.probed.name]) for one in standings],
        "failed": failed,
    }
    if standings:
        quick = fastest_as_good(standings, 1 - settings.evaluate.confidence)
        found |= {
            key: {"backbone": name, "params": _to_put(entrants[name].params, settings.features)}
            for key, name in (("most_accurate", standings[0].probed.name), ("fastest_as_good", quick.probed.name))
        }
    return found


def _row(one: Standing, entrant: Entrant) -> dict[str, Any]:
    found, spec, extractor = one.probed, entrant.spec, entrant.job.extractor
    return {
        "backbone": found.name,
        "timm": spec.backbone,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
        "fingerprint": entrant.fingerprint["digest"],
        "computed_by": f"{extractor.engine} {extractor.device} {extractor.precision}",
        "accuracy": found.accuracy,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "log_loss": found.log_loss,
        "p_against_best": one.p,
        "images_per_second": round(found.images_per_second, 2),
        "measured": found.measured,
        "megabytes": round(found.megabytes, 2),
        "dimension": found.dimension,
        **found.settings,
        "on_front": one.on_front,
    }


def _to_put(params: FeaturesParams, own: FeaturesParams) -> dict[str, Any]:
    """The keys of `features` in params.yaml that would have to change; empty for the project's own backbone."""
    keys = {"backbone", "weights", "weights_sha256"}
    mine = own.model_dump(include=keys)
    return {key: value for key, value in params.model_dump(include=keys).items() if value != mine[key]}


def _write(found: dict[str, Any], standings: list[Standing], settings: Params, paths: Paths) -> None:
    with whole_folder(paths.state / "rank") as folder:
        write_json(folder / "rank.json", found)
        if standings:
            ranking_picture(standings, settings.evaluate.confidence, found["held_out"], folder / "rank.png")


def _record(
    tracker: Tracker,
    found: dict[str, Any],
    standings: list[Standing],
    candidates: dict[str, FeaturesParams],
    head: HeadParams,
    paths: Paths,
) -> None:
    """One child run per candidate, and the summary on the parent."""
    parent, dataset = found["mlflow_run_id"], DatasetRecord("raw", found["images"])
    process = processes.key(processes.me())
    for name, params in candidates.items():
        row = next((row for row in found["candidates"] if row["backbone"] == name), None)
        if row is None and name not in found["failed"]:
            continue  # another name of a ranked candidate
        run_id = tracker.start_candidate(
            name, parent, {"features": params.model_dump(), "head": head.model_dump()}, process
        )
        metrics = {_METRICS.get(key, key): value for key, value in (row or {}).items()}
        tracker.log_record(run_id, Record(metrics, dataset=dataset), metrics, found["dataset"])
        tracker.end(run_id, "FINISHED" if row else "FAILED", found["failed"].get(name, ""))
    files = [file for file in sorted((paths.state / "rank").iterdir()) if file.is_file()]
    summary: dict[str, Any] = {"candidates": len(standings), "failed": len(found["failed"])}
    if standings:
        summary["val_accuracy"] = standings[0].probed.accuracy
    facts: dict[str, str] = {
        key: found[key]["backbone"] for key in ("most_accurate", "fastest_as_good") if key in found
    }
    tracker.log_record(parent, Record({}, facts=facts, files=files, dataset=dataset), summary, found["dataset"])


_METRICS = {
    "accuracy": "val_accuracy",
    "accuracy_low": "val_accuracy_low",
    "accuracy_high": "val_accuracy_high",
    "log_loss": "val_log_loss",
}
"""Metrics that have the name of the stages' metrics in MLflow."""
