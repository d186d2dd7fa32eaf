"""The inference engine: files in, features out, with decoding and the network both at work all the time.

Threads decode into a ring of uint8 batches that are allocated once; each batch is the input of one OpenVINO request,
which starts when its last image has been decoded. Memory is bounded by the ring whatever the number of images. PIL and
OpenVINO both release the interpreter lock, so no worker process is needed. torch is not imported.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino as ov

from .images import Pixels

Features = npt.NDArray[np.float32]
"""float32, shape (N, D)."""

Precision = Literal["f32", "bf16"]

STALLED = 5.0
"""Seconds without a finished batch after which the requests are asked whether they failed: OpenVINO does not call back
from one that did."""

BATCH = 8
"""Images a request. Measured on two cores with lite0: 1 to 16 are within 10 % of each other, more is slower."""

PARITY = 0.999
"""The least cosine between bf16 and fp32 features at which bf16 is trusted."""


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
        graph: the .xml file of a model from uint8 (B, H, W, 3), normalisation included, to float32 (B, D).
        precision: `f32`, or `bf16` for machines that are faster with it.
        compiled: a folder in which OpenVINO keeps what it compiled, to start faster the next time.
    """

    def __init__(self, graph: Path, precision: Precision = "f32", compiled: Path | None = None) -> None:
        self.precision = precision
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        core = ov.Core()
        if compiled is not None:
            core.set_property({"CACHE_DIR": str(compiled)})
        self._model = core.compile_model(graph, "CPU", config)
        _, self.height, self.width, _ = (dim.get_min_length() for dim in self._model.input(0).partial_shape)
        self.dimension: int = self._model.output(0).partial_shape[1].get_length()

    def __call__(self, pixels: Pixels) -> Features:
        """Features (B, D) of pixels (B, H, W, 3)."""
        request = self._model.create_infer_request()
        request.set_input_tensor(ov.Tensor(np.ascontiguousarray(pixels)))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    def stream(
        self, load: Callable[[int], Pixels], count: int, threads: int | None = None
    ) -> Iterator[tuple[int, Features]]:
        """Features of images 0 to count - 1, batch by batch, in order.

        Args:
            load: gives image i as uint8 (H, W, 3); called from several threads.
            count: the number of images.
            threads: decoding threads; by default one a core.

        Yields:
            (index of the batch's first image, float32 of shape (B, D)).

        Raises:
            Whatever `load` raised, after the work under way has ended.
        """
        workers = threads or os.cpu_count() or 1
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            ring = _Ring(self._model, self.height, self.width, pool, load)
            try:
                yield from ring.run(count)
            finally:
                ring.abandon()


@dataclass
class _Slot:
    """One request, its input buffer, and how far it is."""

    request: ov.InferRequest
    pixels: Pixels
    start: int = 0
    size: int = 0
    missing: int = 0
    started: bool = False


class _Ring:
    def __init__(
        self,
        model: ov.CompiledModel,
        height: int,
        width: int,
        pool: ThreadPoolExecutor,
        load: Callable[[int], Pixels],
    ) -> None:
        self._pool, self._load = pool, load
        self._lock = threading.Lock()
        self._finished: queue.Queue[int | BaseException] = queue.Queue()
        self._cancelled = False
        requests = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._slots = [self._slot(model, height, width, number) for number in range(2 * requests + 1)]

    def _slot(self, model: ov.CompiledModel, height: int, width: int, number: int) -> _Slot:
        request = model.create_infer_request()
        # The request keeps its callback where Python's garbage collector cannot look: so it must not hold the request.
        request.set_callback(self._finished.put, number)
        return _Slot(request, np.empty((BATCH, height, width, 3), np.uint8))

    def run(self, count: int) -> Iterator[tuple[int, Features]]:
        free, ready, fed, wanted = list(self._slots), {}, 0, 0
        while wanted < count:
            while free and fed < count:
                slot = free.pop()
                self._feed(slot, fed, min(BATCH, count - fed))
                fed += slot.size
            finished = self._next()
            ready[finished.start] = finished
            while wanted in ready:
                slot = ready.pop(wanted)
                yield slot.start, slot.request.get_output_tensor(0).data.copy()
                wanted += slot.size
                free.append(slot)

    def _next(self) -> _Slot:
        while True:
            try:
                finished = self._finished.get(timeout=STALLED)
            except queue.Empty:
                for slot in self._slots:
                    if slot.started:
                        slot.request.wait_for(0)  # raises what the request failed with
                continue
            if isinstance(finished, BaseException):
                raise finished
            self._slots[finished].started = False
            return self._slots[finished]

    def _feed(self, slot: _Slot, start: int, size: int) -> None:
        slot.start, slot.size, slot.missing = start, size, size
        for place in range(size):
            self._pool.submit(self._decode, slot, place)

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
                slot.started = True
        except BaseException as error:  # noqa: BLE001  (handed to the consumer, which raises it)
            self._finished.put(error)

    def abandon(self) -> None:
        """No new work; what runs already is waited for, so that no request outlives its buffer."""
        self._cancelled = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for slot in self._slots:
            with suppress(RuntimeError):  # one that failed has said so; the others are still to be waited for
                slot.request.wait()


def choose_precision(
    build: Callable[[Precision], Callable[[Pixels], Features]],
    wanted: Literal["auto", "f32", "bf16"],
    sample: Callable[[], Sequence[Pixels]],
    *,
    fast: bool,
) -> tuple[Precision, str]:
    """The precision to extract with, and the reason in words.

    Whoever asked for bf16, it is compared with fp32 on `sample` first.

    Args:
        build: makes an engine of a precision.
        fast: whether bf16 is faster here; `auto` takes it only then.
    """
    if wanted == "f32" or (wanted == "auto" and not fast):
        return "f32", "asked for" if wanted == "f32" else "this processor has no fast bf16"
    pixels = np.stack(sample())
    cosine = float(_cosine(build("bf16")(pixels), build("f32")(pixels)).min())
    if not cosine >= PARITY:  # no number is no agreement
        return "f32", f"bf16 differs from fp32: least cosine {cosine:.6f} on {len(pixels)} images, {PARITY} needed"
    return "bf16", f"least cosine to fp32 {cosine:.6f} on {len(pixels)} images"


def _cosine(a_ND: npt.NDArray[Any], b_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: npt.NDArray[np.float64] = np.asarray((a * b).sum(axis=1) / norms)
    return np.where(~a.any(axis=1) & ~b.any(axis=1), 1.0, cosine)  # two that are nothing are alike
