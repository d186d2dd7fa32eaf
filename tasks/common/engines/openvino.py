"""The inference engine: files in, features out; decoding and the network run at the same time.

Threads decode into a ring of uint8 batches that are allocated once; each batch is the input of one OpenVINO request,
which starts when its last image has been decoded. The ring bounds the memory for any number of images. PIL and
OpenVINO both release the interpreter lock, so no worker process is needed. torch is not imported.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino as ov

from ..core.cores import cores, cores_of_quota
from ..images.decode import Pixels

Features = npt.NDArray[np.float32]
"""float32, shape (N, D)."""

Precision = Literal["f32", "bf16"]

BATCH = 8
"""Images per request. Measured on two cores with lite0: 1 to 16 are within 10 % of each other, more is slower."""

USUAL_SIDE = 768
"""Pixels a side up to which batches are whole; of larger images, which tiles make, fewer are computed at once."""

PARITY = 0.999
"""The smallest cosine between bf16 and fp32 features at which bf16 is used."""


def batch_of(height: int, width: int, most: int) -> int:
    """How many images of this size are computed at once: `most`, or half, a quarter, ... of it."""
    batch = most
    while batch > 1 and batch * height * width > most * USUAL_SIDE**2:
        batch //= 2
    return batch


def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 in tiles (AMX).

    AVX512-BF16 alone does not count: there bf16 ran at 0.6 of the speed of fp32 (lite0, two cores).
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class Engine:
    """A backbone, compiled.

    Args:
        graph: the .xml file of a model from uint8 (B, H, W, C), normalisation included, to float32 (B, D).
        precision: `f32`, or `bf16` for machines that are faster with it.
    """

    def __init__(self, graph: Path, precision: Precision = "f32") -> None:
        self.precision = precision
        config: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        if (few := cores_of_quota()) is not None:
            config["INFERENCE_NUM_THREADS"] = few
        # Without OpenVINO's cache of compiled models, which it does not verify: one flipped bit gives other features.
        self._model = ov.Core().compile_model(graph, "CPU", config)
        _, *shape = (dim.get_min_length() for dim in self._model.input(0).partial_shape)
        self.height, self.width, self.channels = shape
        self.dimension: int = self._model.output(0).partial_shape[1].get_length()

    def __call__(self, pixels: Pixels) -> Features:
        """Features (B, D) of pixels (B, H, W, C)."""
        request = self._model.create_infer_request()
        request.set_input_tensor(ov.Tensor(np.ascontiguousarray(pixels)))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    def stream(
        self, load: Callable[[int], Pixels], count: int, threads: int | None = None
    ) -> Iterator[tuple[int, Features]]:
        """Features of images 0 to count - 1, batch by batch, in order.

        Args:
            load: gives image i as uint8 (H, W, C); called from several threads.
            count: the number of images.
            threads: decoding threads; by default one per core.

        Yields:
            (index of the batch's first image, float32 of shape (B, D)).

        Raises:
            Any error of `load`, after the work in progress has ended.
        """
        workers = threads or cores()
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            ring = _Ring(self._model, (self.height, self.width, self.channels), pool, load)
            try:
                yield from ring.run(count)
            finally:
                ring.abandon()

    def rest(self) -> None:
        """Releases the memory that is needed only to compute, half of all; getting it again costs 2 % of the time."""
        self._model.release_memory()


@dataclass
class _Slot:
    """One request and its input buffer, the images in it, and how many of them are not decoded yet."""

    request: ov.InferRequest
    pixels: Pixels
    start: int = 0
    size: int = 0
    missing: int = 0
    error: BaseException | None = None
    settled: threading.Event = field(default_factory=threading.Event)


class _Ring:
    """Batches are awaited in order, so that no callback is needed: OpenVINO's threads would need Python's lock for it,
    which the thread that stops them may hold."""

    def __init__(
        self,
        model: ov.CompiledModel,
        image_shape: tuple[int, int, int],
        pool: ThreadPoolExecutor,
        load: Callable[[int], Pixels],
    ) -> None:
        self._pool, self._load = pool, load
        self._lock = threading.Lock()
        self._cancelled = False
        requests = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._batch = batch_of(*image_shape[:2], BATCH)
        shape = (self._batch, *image_shape)
        self._free = [_Slot(model.create_infer_request(), np.empty(shape, np.uint8)) for _ in range(2 * requests + 1)]
        self._under_way: deque[_Slot] = deque()

    def run(self, count: int) -> Iterator[tuple[int, Features]]:
        fed = 0
        while fed < count or self._under_way:
            while self._free and fed < count:
                fed += self._feed(self._free.pop(), fed, min(self._batch, count - fed))
            slot = self._under_way.popleft()
            slot.settled.wait()
            if slot.error is not None:
                raise slot.error
            slot.request.wait()
            yield slot.start, slot.request.get_output_tensor(0).data.copy()
            self._free.append(slot)

    def _feed(self, slot: _Slot, start: int, size: int) -> int:
        slot.start, slot.size, slot.missing, slot.error = start, size, size, None
        slot.settled.clear()
        self._under_way.append(slot)
        for place in range(size):
            self._pool.submit(self._decode, slot, place)
        return size

    def _decode(self, slot: _Slot, place: int) -> None:
        if self._cancelled:
            return
        try:
            slot.pixels[place] = self._load(slot.start + place)
            with self._lock:
                slot.missing -= 1
                last = slot.missing == 0
            if last:
                slot.request.set_input_tensor(ov.Tensor(slot.pixels[: slot.size], shared_memory=True))
                slot.request.start_async()
                slot.settled.set()
        except BaseException as error:  # noqa: BLE001  (handed to the consumer, which raises it)
            slot.error = error
            slot.settled.set()

    def abandon(self) -> None:
        """Starts no new work and waits for running requests, so that none outlives its buffer."""
        self._cancelled = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for slot in self._under_way:
            if slot.settled.is_set() and slot.error is None:
                with suppress(RuntimeError):  # the consumer has another error, or has stopped
                    slot.request.wait()


def choose_precision(
    build: Callable[[Precision], Callable[[Pixels], Features]],
    wanted: Literal["auto", "f32", "bf16"],
    sample: Callable[[], Sequence[Pixels]],
    *,
    fast: bool,
) -> tuple[Precision, str]:
    """The precision to extract with, and the reason in words. bf16 is always compared with fp32 on `sample` first.

    Args:
        build: creates an engine with a precision.
        fast: whether bf16 is faster here; `auto` takes it only then.
    """
    if wanted == "f32" or (wanted == "auto" and not fast):
        return "f32", "asked for" if wanted == "f32" else "this processor has no fast bf16"
    pixels = np.stack(sample())
    cosine = float(_cosine(build("bf16")(pixels), build("f32")(pixels)).min())
    if not cosine >= PARITY:  # NaN is not agreement
        return "f32", f"bf16 differs from fp32: least cosine {cosine:.6f} on {len(pixels)} images, {PARITY} needed"
    return "bf16", f"least cosine to fp32 {cosine:.6f} on {len(pixels)} images"


def _cosine(a_ND: npt.NDArray[Any], b_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: npt.NDArray[np.float64] = np.asarray((a * b).sum(axis=1) / norms)
    return np.where(~a.any(axis=1) & ~b.any(axis=1), 1.0, cosine)  # two zero vectors count as equal
