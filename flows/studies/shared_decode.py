"""Several backbones over the same images in one decode pass.

Block by block, each file is read and decoded once and cropped to every geometry that is needed; then one engine after
the other processes the block, so that the time of each is known. In memory are the networks, the pixels of one block
(see `block_size`) and one decoded image per thread, whatever the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.progress import Progress, progress
from graft.tasks.common.engines.one_decode import Places, block_size, geometry_of
from graft.tasks.common.engines.openvino import BATCH, Features
from graft.tasks.common.feature_cache.segments import FeatureCache, Ids
from graft.tasks.common.images.decode import Picture, Pixels
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.features.extractor import AnyEngine, Extractor

Mask = npt.NDArray[np.bool_]
T = TypeVar("T")


@dataclass
class Cost:
    """The cost of a backbone.

    Attributes:
        images: the number of images that it computed.
        reading: seconds for decoding them and cropping them to its geometry.
        network: seconds for its engine, until the features are stored.
        sampled: whether it was measured on images whose features were not needed.
    """

    images: int = 0
    reading: float = 0.0
    network: float = 0.0
    sampled: bool = False

    def images_per_second(self, device: str) -> float:
        """The speed of the backbone alone: on a processor both parts need the same cores; a GPU computes while the
        processor reads."""
        both = self.reading + self.network if device == "cpu" else max(self.reading, self.network)
        return self.images / both if self.images else 0.0


@dataclass
class Job:
    """A backbone, the cache of its features, and its cost so far.

    Attributes:
        failure: the error that ended its work, if there was one; the other jobs continue.
    """

    extractor: Extractor
    cache: FeatureCache
    cost: Cost = field(default_factory=Cost)
    failure: Exception | None = None


def extract(jobs: Sequence[Job], ids: Ids, files: Sequence[Path], reading: Reading, threads: int = 0) -> None:
    """Computes and stores the features that the caches do not have; a job that fails does not stop the others.

    Args:
        ids: (N,) the images' keys.
        files: the N files.
        reading: how they are read.
        threads: for decoding; 0 means one per core.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
    """
    first_N = np.zeros(len(ids), np.bool_)
    first_N[np.unique(ids, return_index=True)[1]] = True
    with ExitStack() as caches:
        parts = []
        for job in jobs:
            missing_N = first_N & ~job.cache.has(ids)
            if missing_N.any() and job.failure is None:
                caches.enter_context(job.cache)
                parts.append(_Part(job, missing_N, partial(_add, job.cache, ids)))
        _pass(parts, Files(files, [bytes(one).hex() for one in ids], reading), threads)
    for job in jobs:
        job.cache.refresh()


def _add(cache: FeatureCache, ids: Ids, places: Places, batch_BD: Features) -> None:
    cache.add(ids[places], batch_BD)


def read(job: Job, ids: Ids, files: Sequence[Path], reading: Reading, threads: int = 0) -> npt.NDArray[Any]:
    """Features (N, D) from the cache; damaged ones are recomputed.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
        GraftError: the cache does not return what was written to it.
    """

    def compute(places: Places) -> None:
        extract([job], ids[places], [files[place] for place in places], reading, threads)
        if job.failure is not None:
            raise job.failure

    features_ND = np.empty((len(ids), job.cache.dimension), job.cache.dtype)
    for places, block in job.cache.read_all(ids, compute):
        features_ND[places] = block
    return features_ND


def measure(jobs: Sequence[Job], files: Sequence[Path], reading: Reading, threads: int = 0) -> None:
    """Sets the jobs' cost by a pass over `files` whose features are not stored."""
    for job in jobs:
        job.cost = Cost(sampled=True)
    parts = [_Part(job, np.ones(len(files), np.bool_), lambda places, batch: None) for job in jobs]
    _pass(parts, Files(files, [None] * len(files), reading), threads)


@dataclass(frozen=True)
class Files:
    """N files, their md5s (None for files that are only timed), and how they are read."""

    files: Sequence[Path]
    image_ids: Sequence[str | None]
    reading: Reading

    def open(self, place: int) -> AbstractContextManager[Picture]:
        return self.reading.file(self.files[place], self.image_ids[place])


@dataclass
class _Part:
    """A job's part in one pass: the files that it needs, and what takes places (B,) and features (B, D)."""

    job: Job
    wanted_N: Mask
    keep: Callable[[Places, Features], None]

    @property
    def geometry(self) -> EvalTransform:
        return geometry_of(self.job.extractor.spec.transform)


@dataclass(frozen=True)
class _Block:
    """B decoded images, each cropped only to the geometries of the parts that need it.

    Attributes:
        places: (B,) in the list of files.
        pixels: geometry -> uint8 (B, H, W, C); C is the same for all.
        decoding: (B,) seconds of one thread.
        cutting: geometry -> (B,) seconds of one thread.
        seconds: for the whole block, with all threads.
    """

    places: Places
    pixels: dict[EvalTransform, Pixels]
    decoding: npt.NDArray[np.float64]
    cutting: dict[EvalTransform, npt.NDArray[np.float64]]
    seconds: float

    def seconds_of(self, rows: Places, geometry: EvalTransform) -> float:
        """The part of the block's seconds that is due to these images in this geometry."""
        whole = self.decoding.sum() + sum(cut.sum() for cut in self.cutting.values())
        return float(self.seconds * (self.decoding[rows].sum() + self.cutting[geometry][rows].sum()) / whole)


def _pass(parts: list[_Part], files: Files, threads: int) -> None:
    engines = [engine for part in parts if (engine := _attempt(part.job, _start, part.job)) is not None]
    parts = [part for part in parts if part.job.failure is None]
    if not parts:
        return
    places = np.flatnonzero(np.any([part.wanted_N for part in parts], axis=0))
    size = block_size(list(dict.fromkeys(part.geometry for part in parts)))
    what = "extracting, 1 backbone" if len(parts) == 1 else f"extracting, {len(parts)} backbones"
    with (
        ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode") as pool,
        progress(what, sum(int(np.count_nonzero(part.wanted_N)) for part in parts)) as bar,
    ):
        for start in range(0, len(places), size):
            if all(part.job.failure is not None for part in parts):
                return
            block = _decode(places[start : start + size], parts, files, pool)
            for part, engine in zip(parts, engines, strict=True):
                _attempt(part.job, _compute, part, engine, block, bar)


def _attempt(job: Job, work: Callable[..., T], *values: Any) -> T | None:
    """The result of the work; None if it fails, or if the job has failed before."""
    if job.failure is not None:
        return None
    try:
        return work(*values)
    except Exception as error:  # noqa: BLE001  (one candidate's error is reported and must not stop the others)
        job.failure = error
        return None


def _start(job: Job) -> AnyEngine:
    """The engine, warmed up: the very first batch is slower and would be counted."""
    engine, transform = job.extractor.build(), job.extractor.spec.transform
    engine(np.zeros((BATCH, transform.height, transform.width, transform.channels), np.uint8))
    engine.rest()
    return engine


def _decode(places: Places, parts: list[_Part], files: Files, pool: ThreadPoolExecutor) -> _Block:
    started = time.perf_counter()
    wanted = _wanted(places, parts)
    channels = next(iter(wanted)).channels
    pixels = {g: np.empty((len(places), g.height, g.width, channels), np.uint8) for g in wanted}
    decoding = np.zeros(len(places))
    cutting = {g: np.zeros(len(places)) for g in wanted}

    def load(row: int) -> None:
        begun = time.perf_counter()
        with files.open(places[row]) as picture:
            decoding[row] = time.perf_counter() - begun
            for geometry, wanted_B in wanted.items():
                if wanted_B[row]:
                    begun = time.perf_counter()
                    pixels[geometry][row] = geometry(*picture)
                    cutting[geometry][row] = time.perf_counter() - begun

    try:
        for done in [pool.submit(load, row) for row in range(len(places))]:
            done.result()
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    return _Block(places, pixels, decoding, cutting, time.perf_counter() - started)


def _wanted(places: Places, parts: list[_Part]) -> dict[EvalTransform, Mask]:
    """Geometry -> which of the images (B,) the parts with it still need."""
    wanted: dict[EvalTransform, Mask] = {}
    for part in parts:
        if part.job.failure is None:
            wanted[part.geometry] = wanted.get(part.geometry, np.zeros(len(places), np.bool_)) | part.wanted_N[places]
    return wanted


def _compute(part: _Part, engine: AnyEngine, block: _Block, bar: Progress) -> None:
    rows, pixels = np.flatnonzero(part.wanted_N[block.places]), block.pixels[part.geometry]
    started = time.perf_counter()
    for start, batch_BD in engine.stream(lambda i: pixels[rows[i]], len(rows), 1):
        part.keep(block.places[rows[start : start + len(batch_BD)]], batch_BD)
        bar.add(len(batch_BD))
    engine.rest()
    cost = part.job.cost
    cost.network += time.perf_counter() - started
    cost.reading += block.seconds_of(rows, part.geometry)
    cost.images += len(rows)
