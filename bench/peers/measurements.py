"""What every peer measures in the same way. Standard library and numpy only: peers have environments of their own."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH = 32
"""Images a batch, for all peers: what tutorials use."""

STARTED = "BENCH_STARTED"
"""The variable with the time (seconds since 1970) at which the peer's process was started."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Those that all peers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, required=True, help="photographs, a folder a class")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--model", type=Path, help="the folder that bench.peers.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="for features.npy and measurements.json")
    return parser


class Measurements:
    """A peer's stopwatch: everything before the first loop is its start."""

    def __init__(self, out: Path, images: int) -> None:
        self.out, self.images = out, images
        self.startup_seconds = time.time() - float(os.environ[STARTED])
        self.loop_seconds: dict[str, float] = {}

    def loop(self, label: str, features: Callable[[], npt.NDArray[Any]]) -> None:
        """Times files to features, the features' way to the disk included."""
        started = time.perf_counter()
        found_ND = features()
        np.save(self.out / "features.npy", np.asarray(found_ND, np.float32))
        self.loop_seconds[label] = round(time.perf_counter() - started, 3)
        if len(found_ND) != self.images:
            raise SystemExit(f"{len(found_ND)} features of {self.images} images")

    def write(self, files: list[str], **versions: str) -> None:
        content = {
            "images": self.images,
            "startup_seconds": round(self.startup_seconds, 3),
            "loop_seconds": self.loop_seconds,
            "versions": versions,
            "files": files,
        }
        (self.out / "measurements.json").write_text(json.dumps(content), encoding="utf-8")
