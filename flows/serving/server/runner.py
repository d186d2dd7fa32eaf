"""A loaded model and the threads that ask it. Images that are decoded at the same time share a batch."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.engines.openvino import BATCH, Features
from graft.tasks.common.images.decode import Picture, Pixels
from graft.tasks.common.images.unreadable import Refused, UnreadableImage, in_words
from graft.tasks.register.serving import WITH_MAPS

from ..heat_maps import Map, below, drawn
from ..loading import Predictor
from .metrics import CLASSES, Metrics
from .refusal import Refusal, busy

GATHER = 0.003
"""Seconds for which a batch waits for images that are being decoded."""

Answer = dict[str, Any]


@dataclass(slots=True)
class Job:
    """One image on its way to its answer.

    Attributes:
        wants_map: whether the answer is to have a heat map.
        shown: what it is laid over.
    """

    content: bytes
    done: asyncio.Future[Answer]
    wants_map: bool = False
    pixels: list[Pixels] | None = None
    shown: Pixels | None = None


class Runner:
    """Args:
    threads: that compute features at the same time.
    decoders: the threads that decode, of the whole process.
    """

    def __init__(self, predictor: Predictor, threads: int, decoders: Executor, metrics: Metrics) -> None:
        self.name, self.version, self.facts = predictor.name, predictor.version, predictor.facts
        self.where = predictor.where
        self.classifier = predictor.classifier
        self.open = 0
        """Images that were admitted and are not answered; see `Desk`."""
        self._decoders, self._metrics = decoders, metrics
        self._by_class = len(self.classifier.classes) <= CLASSES
        self._ready: SimpleQueue[Job | None] = SimpleQueue()
        self._decoding, self._lock = 0, threading.Lock()
        self.classifier.eyes.load()
        self._try()
        self._threads = [threading.Thread(target=self._work, name=f"infer-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def has_maps(self) -> bool:
        return self.classifier.task in WITH_MAPS

    def submit(
        self, content: bytes, loop: asyncio.AbstractEventLoop, wants_map: bool = False
    ) -> asyncio.Future[Answer]:
        """Args:
            wants_map: whether the answer is to have `map`, a PNG in base64.

        Raises, when awaited: Refusal, the bytes are not an image that can be read.
        """
        job = Job(content, loop.create_future(), wants_map)
        with self._lock:
            self._decoding += 1
        self._decoders.submit(self._decode, job)
        return job.done

    def stop(self) -> None:
        """Ends the threads, after what they have."""
        for _ in self._threads:
            self._ready.put(None)

    def _decode(self, job: Job) -> None:
        try:
            if not job.done.cancelled():
                with self.classifier.eyes.reading.image(job.content) as picture:
                    job.shown = below(self.classifier, picture) if job.wants_map else None
                    job.pixels = self.classifier.eyes.pixels(picture)
        except Exception as error:  # noqa: BLE001  (told to the client)
            _fail([job], refusal_of(error))
        finally:
            job.content = b""
            with self._lock:
                self._decoding -= 1
        if job.pixels is not None:
            self._ready.put(job)

    def _work(self) -> None:
        while (first := self._ready.get()) is not None:
            jobs = [job for job in self._gather(first) if not job.done.cancelled()]
            if jobs:
                self._answer(jobs)

    def _gather(self, first: Job) -> list[Job]:
        """At most a batch; waits only while others are being decoded."""
        jobs, until = [first], time.monotonic() + GATHER
        while len(jobs) < BATCH:
            wait = until - time.monotonic() if self._decoding else 0.0
            try:
                job = self._ready.get(wait > 0, max(wait, 0.0))
            except Empty:
                break
            if job is None:
                self._ready.put(None)
                break
            jobs.append(job)
        return jobs

    def _answer(self, jobs: list[Job]) -> None:
        try:
            features_BD = self._features([job.pixels or [] for job in jobs])
            answers = self.classifier.answers(features_BD)
            drawn = self._drawn(jobs, features_BD)
        except Exception as error:  # noqa: BLE001  (raised where the answer is awaited)
            _fail(jobs, error)
            return
        self._metrics.batch.observe(len(jobs))
        self._metrics.answered(answers, self._by_class)
        ready = [
            (job, answer) for place, (job, answer) in enumerate(zip(jobs, answers, strict=True)) if place not in drawn
        ]
        _tell(jobs, [_setter(job, answer) for job, answer in ready])
        for place, map_HW in drawn.items():
            self._decoders.submit(self._draw, jobs[place], answers[place], map_HW)

    def _features(self, pixels_BE: Sequence[list[Pixels]]) -> Features:
        return self.classifier.eyes.look([np.stack(pixels_B) for pixels_B in zip(*pixels_BE, strict=True)])

    def _drawn(self, jobs: list[Job], features_BD: Features) -> dict[int, Map]:
        """The heat map of each image, by its place, that is to have one."""
        places = [place for place, job in enumerate(jobs) if job.wants_map]
        return dict(zip(places, self.classifier.heat(features_BD[places]), strict=True)) if places else {}

    def _draw(self, job: Job, answer: Answer, map_HW: Map) -> None:
        """Gives an answer with its heat map. Encoding takes longer than the answer, so others do not wait for it."""
        try:
            assert job.shown is not None
            whole = {**answer, "map": _png(drawn(self.classifier, job.shown, map_HW))}
            _tell([job], [_setter(job, whole)])
        except Exception as error:  # noqa: BLE001  (raised where the answer is awaited)
            _fail([job], error)

    def _try(self) -> None:
        """Raises:
        GraftError: it does not answer, or not with finite numbers.
        """
        eyes = self.classifier.eyes
        try:
            pixels_BE = [eyes.pixels(picture) for picture in _trial(eyes.reading.channels)]
            answers = self.classifier.answers(self._features(pixels_BE))
        except Exception as error:
            raise GraftError(f"{self.where} fails on a trial image", got=f"{type(error).__name__}: {error}") from error
        odd = [number for answer in answers for number in _numbers(answer) if not np.isfinite(number)]
        if odd or len(answers) != 2:
            raise GraftError(f"{self.where} gives no finite numbers for a trial image", got=odd)


def _png(pixels: Pixels) -> str:
    """In base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return base64.b64encode(file.getvalue()).decode("ascii")


def refusal_of(error: Exception) -> Exception:
    """What the client is told, by what reading its image raised; a fault of our own stays what it is."""
    if isinstance(error, MemoryError):
        return busy("there is not enough memory for this image now; try again", "memory")
    if isinstance(error, Refused):
        return Refusal(413, f"is not decoded: {_line(str(error))}", "image_limits")
    if isinstance(error, UnreadableImage | OSError | ValueError):
        return Refusal(422, f"is not an image that can be read: {_line(in_words(error))}", "unreadable")
    return error


def _line(text: str) -> str:
    """Without the addresses of objects, which PIL names."""
    return re.sub(r" <[^>]* object at 0x[0-9a-f]+>", "", text).split("\n")[0][:300]


def _fail(jobs: list[Job], error: Exception) -> None:
    _tell(jobs, [_failer(job, error) for job in jobs])


def _tell(jobs: list[Job], tell: list[Callable[[], None]]) -> None:
    def all_of_them() -> None:
        for one in tell:
            one()

    loop = jobs[0].done.get_loop()
    if not loop.is_closed():  # the server has ended, and nobody waits any more
        loop.call_soon_threadsafe(all_of_them)


def _setter(job: Job, answer: Answer) -> Callable[[], None]:
    return lambda: None if job.done.done() else job.done.set_result(answer)


def _failer(job: Job, error: Exception) -> Callable[[], None]:
    return lambda: None if job.done.done() else job.done.set_exception(error)


def _trial(channels: int) -> list[Picture]:
    """A ramp and noise, in as many bands as the model needs."""
    ramp_HW = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    return [_bands(ramp_HW, channels), _bands(noise_HW, channels)]


def _bands(grey_HW: npt.NDArray[np.uint8], channels: int) -> Picture:
    grey = Image.fromarray(grey_HW)
    return (grey.convert("RGB"),) if channels == 3 else (grey,) * channels


def _numbers(answer: Answer) -> list[float]:
    numbers = [value for value in answer.values() if isinstance(value, float)]
    return [*numbers, *answer.get("probabilities", {}).values()]
