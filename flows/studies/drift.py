"""`graft drift`: whether new images look like those that a registered model was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import read_json, whole_folder, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.record import DatasetRecord, Record
from graft.tasks.common.data.feature_set import Rows
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.data.units import units
from graft.tasks.common.engines.openvino import Features
from graft.tasks.common.feature_cache.segments import FeatureCache, Ids, ids_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.shards import hash_of
from graft.tasks.common.images.unreadable import Refused
from graft.tasks.common.maps.form import MapForm
from graft.tasks.preprocess.check import judge, look
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.register.packaged_eyes import form_in, reading_in
from graft.tasks.register.reference_set import Reference, package_features
from graft.tasks.studies.drift import Comparison, compare

from ..registry.models import CHAMPION, fetched_package, find_version
from ..runtime.params import DriftParams, Params, load_params
from ..serving.image_list import list_source
from ..tracking.store import has_store
from ..tracking.tracker import Tracker
from ..versioning import dvc
from .study import provenance

LEAST = 20
"""With fewer images than this, new ones or the model's, no test can tell anything."""

NAMED = 10
"""The number of images farthest from all training images that are named."""

AHEAD = 64
"""Files that are examined at a time, on all cores."""


class TooFew(DataError):
    """There are too few new images to compare; more may come."""


@dataclass(frozen=True)
class Today:
    """The m new images to compare.

    Attributes:
        names: as the user knows them.
        units_m: int64 codes of the units, see `tasks/common/data/units.py`.
        what: which images these are, in words.
        left_out: reason -> number of images that were left out.
    """

    names: list[str]
    files: list[Path]
    ids: Ids
    units_m: Rows
    what: str
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DriftReport:
    """What was found.

    Attributes:
        verdict: whether the new images differ from those that the model was trained on.
        tests: the tests that found drift: `mmd`, an overall shift; `far`, images unlike any training image.
        document: all metrics, as in drift.json.
    """

    verdict: Literal["none", "drift"]
    tests: tuple[str, ...]
    document: dict[str, Any]


def check_drift(root: Path, source: Path | None = None, model: str = CHAMPION) -> DriftReport:
    """Compares new images with those that a version of the registered model was trained on.

    Args:
        source: a folder of images, or a table of their paths; by default the project's images added since training.
        model: the version's alias or number.

    Raises:
        GraftError: there is no such version.
        DataError: it has no reference features, or there are too few images.
    """
    paths, settings = Paths(root), load_params(Paths(root).params)
    if not has_store(root):
        raise GraftError("no model is registered in this project", todo="run `graft repro`, which registers the first")
    tracker = Tracker(root)
    version = find_version(tracker, settings.register_.name, model)
    with fetched_package(tracker, version) as package:
        reference = read_reference(package, version)
        today = (
            from_manifest(paths, reference, settings.drift)
            if source is None
            else from_source(source, reference, settings, _reading(package))
        )
        with tracker.recorded("drift") as run_id:
            found = compare_with(reference, today, features_of(today, reference, package, paths), settings.drift)
            document = _document(found, reference, today, version, model, settings.drift, paths, run_id)
            _write(found, document, paths)
            _record(tracker, document, source is None)
    return DriftReport(found.verdict, found.tests, document)


def _reading(package: Path) -> Reading:
    return reading_in(read_json(package / "package.json"))


def read_reference(package: Path, version: ModelVersion) -> Reference:
    """Raises:
    DataError: the package has no reference features, or those of too few images.
    """
    return usable(Reference.load(package), version)


def usable(reference: Reference | None, version: ModelVersion) -> Reference:
    """Raises:
    DataError: there is no reference, or one of too few images.
    """
    name = f"version {version.version} of `{version.name}`"
    if reference is None:
        raise DataError(
            f"{name} does not record what it was trained on",
            got="a package without reference.safetensors, from an older version of Graft",
            todo="register a new version with `graft repro`, or name another version with `--model`",
        )
    images, groups = len(reference.groups_n), len(np.unique(reference.groups_n))
    if images < LEAST or groups < 2:
        raise DataError(
            f"{name} was trained on too few images to compare others with",
            got=f"{images} in {groups} groups" if groups < images else images,
            allowed=f"{LEAST} or more, and not all of one group",
            todo="import more images and run the pipeline",
        )
    return reference


def from_manifest(paths: Paths, reference: Reference, params: DriftParams) -> Today:
    """A sample of the project's images that were added since the model was trained; if these are too few, of all images
    that it was not trained on.

    Raises:
        DataError: there are too few.
    """
    dvc.repro_preprocess(paths.root)
    manifest = read_manifest(paths.manifest, ["image_id", "path", "group", "pixels"])
    manifest = manifest.assign(unit=units(manifest)[0])
    seen, held_out = (_known(manifest, ids) for ids in (reference.seen_ids, reference.held_out_ids))
    manifest = manifest.assign(unseen=~seen, new=~seen & ~held_out).drop_duplicates("pixels")
    unseen, new = manifest["unseen"].to_numpy(), manifest["new"].to_numpy()
    taken, what = (new, "were added since it was trained") if new.sum() >= LEAST else (unseen, "it was not trained on")
    _check_enough(int(taken.sum()), {"known to the model": int((~taken).sum())}, "data/raw")
    rows = manifest[taken].sort_values("image_id")
    rows = rows.sample(min(params.sample, len(rows)), random_state=params.seed)
    return Today(
        names=list(rows["path"]),
        files=[paths.raw / name for name in rows["path"]],
        ids=ids_of(list(rows["image_id"])),
        units_m=rows["unit"].to_numpy(),
        what=f"{len(rows):,} of the {taken.sum():,} images of data/raw that {what}",
    )


def _known(manifest: pd.DataFrame, ids: Ids) -> npt.NDArray[np.bool_]:
    """Which images have one of these keys, or a lossless copy that has."""
    known = np.isin(ids_of(list(manifest["image_id"])), ids)
    return manifest["pixels"].isin(manifest["pixels"][known]).to_numpy()


def from_source(source: Path, reference: Reference, settings: Params, reading: Reading) -> Today:
    """A sample of the images below a folder or in a table, without training images of the model, copies, and images
    that the stage preprocess would reject.

    Args:
        reading: how the model reads images.

    Raises:
        DataError: the source cannot be read, or too few images are left.
    """
    listed = list_source(source)
    listed = listed.sample(frac=1.0, random_state=settings.drift.seed)
    known = set(reference.seen_ids.tolist())
    taken: dict[str, tuple[bytes, int]] = {}
    left_out: Counter[str] = Counter()
    examined = _examined(list(listed["file"]), known, settings.preprocess, reading)
    for row, (image_id, pixels, fault) in enumerate(examined):
        if fault or pixels in taken:
            left_out[fault.partition(":")[0] or "a copy of another"] += 1
        else:
            taken[pixels] = image_id, row
        if len(taken) == settings.drift.sample:
            break
    _check_enough(len(taken), left_out, str(source))
    rows = listed.iloc[[row for _, row in taken.values()]].assign(pixels=list(taken))
    ids, what = np.array([image_id for image_id, _ in taken.values()], "V16"), f"{len(rows):,} images of {source}"
    return Today(list(rows["name"]), list(rows["file"]), ids, units(rows)[0], what, dict(left_out))


def _examined(
    files: list[Path], known: set[bytes], checks: PreprocessParams, reading: Reading
) -> Iterator[tuple[bytes, str, str]]:
    """For each file in order its md5, its pixels' hash and why it is left out (empty if it is not); at most `AHEAD`
    files ahead."""

    def examine(file: Path) -> tuple[bytes, str, str]:
        try:
            image_id = bytes.fromhex(hash_of(file))
            if image_id in known:
                return image_id, "", "seen in training"
            seen = look(file, reading.channels, reading.limits, image_id.hex())
            return image_id, seen.pixels, judge(seen, checks.min_side, checks.placeholder_share, reading.limits)
        except Refused as error:
            return image_id, "", str(error)
        except OSError as error:
            return b"", "", f"cannot be read: {error}"

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), AHEAD):
            yield from pool.map(examine, files[start : start + AHEAD])


def _check_enough(count: int, left_out: Mapping[str, int], where: str) -> None:
    """Raises:
    TooFew: there are too few images to compare.
    """
    if count < LEAST:
        others = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())
        raise TooFew(
            f"{where} has too few new images to compare",
            got=f"{count}" + (f"; left out: {others}" if others else ""),
            allowed=f"{LEAST} or more that the model was not trained on",
            todo="wait for more images, or name a folder that has more",
        )


def features_of(today: Today, reference: Reference, package: Path, paths: Paths) -> Features:
    """Float32 (m, D) from the model's own graphs, of maps their means; cached ones are reused."""
    features_mD = np.empty((len(today.files), reference.features_nD.shape[1]), np.float32)
    missing = np.ones(len(today.files), np.bool_)
    if reference.fingerprint:
        missing = _read_cached(features_mD, today.ids, reference, read_json(package / "package.json"), paths)
    if missing.any():
        files = [today.files[place] for place in np.flatnonzero(missing)]
        image_ids = [bytes(today.ids[place]).hex() for place in np.flatnonzero(missing)]
        features_mD[missing] = package_features(package, files, image_ids, "drift: features")
    return features_mD


def _read_cached(
    features_mD: Features, ids: Ids, reference: Reference, facts: dict[str, Any], paths: Paths
) -> npt.NDArray[np.bool_]:
    """Fills in what the caches of all backbones have; returns which images (m,) lack some."""
    form = form_in(facts)
    if form is not None:
        cache = FeatureCache(paths.cache / "features" / reference.fingerprint, form.dimension, "float16")
        return _read_means(features_mD, ids, cache, form)
    alone = {"fingerprint": reference.fingerprint, "dimension": features_mD.shape[1]}
    missing, start = np.zeros(len(ids), np.bool_), 0
    for eye in facts.get("eyes", [alone]):
        cache = FeatureCache(paths.cache / "features" / eye["fingerprint"], eye["dimension"])
        found = np.zeros(len(ids), np.bool_)
        for places, block in cache.read(ids):
            features_mD[places, start : start + eye["dimension"]], found[places] = block, True
        missing |= ~found
        start += eye["dimension"]
    return missing


def _read_means(means_mC: Features, ids: Ids, cache: FeatureCache, form: MapForm) -> npt.NDArray[np.bool_]:
    """The same of maps: a segment at a time."""
    missing = np.ones(len(ids), np.bool_)
    for places, maps_BD in cache.read(ids):
        means_mC[places], missing[places] = form.means(maps_BD), False
    return missing


def compare_with(reference: Reference, today: Today, features_mD: Features, params: DriftParams) -> Comparison:
    """Both tests, with the settings of params.yaml."""
    return compare(
        reference.features_nD,
        features_mD,
        significance=params.significance,
        permutations=params.permutations,
        far_quantile=params.far_quantile,
        min_effect=params.min_effect,
        seed=params.seed,
        groups_N=np.concatenate([reference.groups_n, today.units_m]),
    )


def _document(
    found: Comparison,
    reference: Reference,
    today: Today,
    version: ModelVersion,
    asked_for: str,
    params: DriftParams,
    paths: Paths,
    run_id: str,
) -> dict[str, Any]:
    compared = found.places[len(found.reference_distances) :] - len(reference.features_nD)
    farthest = np.argsort(-found.distances, kind="stable")[:NAMED]
    return {
        **provenance(paths, "drift", run_id),
        "verdict": found.verdict,
        "tests": list(found.tests),
        "model": version.name,
        "version": int(version.version),
        "asked_for": asked_for,
        "reference_images": len(reference.features_nD),
        "images": len(today.files),
        "what": today.what,
        "left_out": today.left_out,
        "compared": {
            "reference_images": len(found.reference_distances),
            "reference_groups": found.reference_groups,
            "images": len(found.distances),
            "groups": found.groups,
        },
        "significance": params.significance,
        "mmd": {**asdict(found.mmd), "squared": found.mmd2, "min_effect": params.min_effect},
        "far": {**asdict(found.far), "quantile": params.far_quantile, "distance": found.far_distance},
        "farthest": [{"path": today.names[compared[i]], "distance": float(found.distances[i])} for i in farthest],
    }


def _write(found: Comparison, document: dict[str, Any], paths: Paths) -> None:
    from graft.tasks.studies.drift_picture import drift_picture  # matplotlib is not needed to compare

    with whole_folder(paths.state / "drift") as folder:
        write_json(folder / "drift.json", document)
        drift_picture(found, f"{document['model']} version {document['version']}", folder / "drift.png")


def _record(tracker: Tracker, document: dict[str, Any], of_project: bool) -> None:
    metrics = {key: document[key] for key in ("images", "reference_images", "mmd", "far")}
    facts = {key: str(document[key]) for key in ("verdict", "model", "version", "asked_for", "what")}
    dataset = DatasetRecord("raw", {"images": document["images"]}) if of_project else None
    files = [Path(document["file"]), Path(document["plot"])]
    record = Record(metrics, facts | {"tests": ", ".join(document["tests"])}, files=files, dataset=dataset)
    tracker.log_record(document["mlflow_run_id"], record, metrics, document["dataset"])
