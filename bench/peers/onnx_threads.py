"""ONNX Runtime on timm's network, with PIL decoding in threads two batches ahead of it."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from .measurements import BATCH, Measurements, arguments

AHEAD = 2
"""Batches that are being decoded while one is computed."""

Pixels = npt.NDArray[np.float32]


def loader(config: dict[str, Any]) -> Callable[[Path], Pixels]:
    """timm's evaluation transform for square inputs and the crop mode `center`: float32 of shape (C, H, W)."""
    side = config["input_size"][1]
    short = math.floor(side / config["crop_pct"])
    resampling = Image.Resampling[config["interpolation"].upper()]
    mean = np.array(config["mean"], np.float32) * 255
    factor = 1 / (np.array(config["std"], np.float32) * 255)

    def load(path: Path) -> Pixels:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        width, height = (int(short * length / min(rgb.size)) for length in rgb.size)
        left, top = round((width - side) / 2), round((height - side) / 2)
        crop = rgb.resize((width, height), resampling).crop((left, top, left + side, top + side))
        pixels_HWC = (np.asarray(crop, np.float32) - mean) * factor
        return pixels_HWC.transpose(2, 0, 1).astype(np.float32, copy=False)

    return load


def batches(files: list[Path], load: Callable[[Path], Pixels], pool: ThreadPoolExecutor) -> Iterator[Pixels]:
    """Float32 (B, C, H, W), in the order of `files`."""
    waiting: deque[list[Future[Pixels]]] = deque()
    for start in range(0, len(files), BATCH):
        waiting.append([pool.submit(load, file) for file in files[start : start + BATCH]])
        if len(waiting) > AHEAD:
            yield np.stack([future.result() for future in waiting.popleft()])
    while waiting:
        yield np.stack([future.result() for future in waiting.popleft()])


def main() -> None:
    options = arguments(__doc__).parse_args()
    config = json.loads((options.model / "transform.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(options.model / "model.onnx", providers=["CPUExecutionProvider"])
    files = sorted(options.folder.rglob("*.jpg"))
    load = loader(config)
    for _ in range(2):
        session.run(None, {"pixels": np.zeros((BATCH, *config["input_size"]), np.float32)})

    measured = Measurements(options.out, len(files))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured.loop(
            "",
            lambda: np.concatenate([session.run(None, {"pixels": x})[0] for x in batches(files, load, pool)]),
        )
    measured.write([file.relative_to(options.folder).as_posix() for file in files], onnxruntime=onnxruntime.__version__)


if __name__ == "__main__":
    main()
