"""The same as `openvino.py`, with torch on a GPU. Imports torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ..core.cores import cores
from ..images.decode import Pixels
from ..images.transform import EvalTransform
from .openvino import Features, Precision, batch_of

BATCH = 64
"""Images per step; fewer of large ones, see `batch_of`."""

AHEAD = 4
"""Batches that are being decoded while one is computed; with the one in work, all the memory there is."""


def best_device() -> str:
    """`cuda`, `mps` or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_fast_bf16(device: str) -> bool:
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class TorchEngine:
    """A backbone on a device, in channels-last memory.

    Args:
        network: in evaluation mode, from normalised float32 (B, C, H, W) to (B, D).
        transform: what `network` was trained to be fed with.
        device: `cuda`, `mps` or `cpu`.
        precision: `f32`, or `bf16` for autocast.
    """

    def __init__(
        self, network: torch.nn.Module, transform: EvalTransform, device: str, precision: Precision = "f32"
    ) -> None:
        if precision == "f32":
            torch.backends.cudnn.allow_tf32 = False  # its ten bits of mantissa are not fp32
        self.precision, self._device = precision, device
        self._shape = (transform.height, transform.width, transform.channels)
        self._batch = batch_of(transform.height, transform.width, BATCH)
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor([255 * value for value in values], device=device).view(1, -1, 1, 1)
            for values in (transform.mean, transform.std)
        )

    def __call__(self, pixels: Pixels) -> Features:
        """Features (B, D) of pixels (B, H, W, C)."""
        return self._forward(torch.from_numpy(np.ascontiguousarray(pixels)))

    def _forward(self, pixels_BHWC: torch.Tensor) -> Features:
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self.precision == "bf16"):
            x_BCHW = pixels_BHWC.to(self._device, non_blocking=True).permute(0, 3, 1, 2)  # channels last as it is
            features: Features = self._network((x_BCHW.float() - self._mean) / self._std).float().cpu().numpy()
        return features

    def stream(
        self, load: Callable[[int], Pixels], count: int, threads: int | None = None
    ) -> Iterator[tuple[int, Features]]:
        """Features of images 0 to count - 1, batch by batch, in order; see `engine.Engine.stream`."""
        buffers = [self._buffer() for _ in range(AHEAD + 1)]
        starts = list(range(0, count, self._batch))
        under_way: list[list[Future[None]]] = []
        with ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode") as pool:

            def feed(number: int) -> None:
                start, buffer = starts[number], buffers[number % len(buffers)].numpy()
                images = range(start, min(start + self._batch, count))
                under_way.append([pool.submit(_fill, buffer, i - start, load, i) for i in images])

            try:
                for number in range(min(AHEAD, len(starts))):
                    feed(number)
                for number, start in enumerate(starts):
                    if number + AHEAD < len(starts):
                        feed(number + AHEAD)
                    futures = under_way.pop(0)
                    for future in futures:
                        future.result()
                    yield start, self._forward(buffers[number % len(buffers)][: len(futures)])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def rest(self) -> None:
        """Nothing to give back: all networks of a process share what torch keeps to compute."""

    def _buffer(self) -> torch.Tensor:
        return torch.empty((self._batch, *self._shape), dtype=torch.uint8, pin_memory=self._device == "cuda")


def _fill(buffer: Pixels, place: int, load: Callable[[int], Pixels], number: int) -> None:
    buffer[place] = load(number)
