"""What every contestant of bench/anomaly.py is told, and what it logs. Standard library and numpy only."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .measurements import STARTED


@dataclass(frozen=True)
class Job:
    """The same for all.

    Attributes:
        what: `build` (files to a model on the disk) or `predict` (files to scores and maps, by that model).
        contestant: its name.
        backbone, weights: timm's name, and a safetensors file by timm's names of parameters.
        size, mean, std: pixels of the square input, and what a pixel between 0 and 1 is normalised by.
        data: a folder in MVTec's layout.
        model: the folder for the model.
        workers: processes that decode.
        coreset: share of the patches that a memory bank keeps.
    """

    what: str
    contestant: str
    backbone: str
    weights: str
    size: int
    mean: list[float]
    std: list[float]
    data: str
    model: str
    workers: int = 0
    coreset: float = 0.1


class Log:
    """Seconds and scores of one process."""

    def __init__(self, out: Path) -> None:
        self._out, self._started = out, float(os.environ[STARTED])
        self._found: dict[str, Any] = {"passes": [], "map_passes": []}

    def built(self) -> None:
        """The model is on the disk."""
        self._found["build_seconds"] = round(time.time() - self._started, 3)

    def passed(self, seconds: float, maps: bool = True) -> None:
        """All files have been scored once, with or without score maps."""
        self._found["map_passes" if maps else "passes"].append(round(seconds, 4))

    def scores(self, files: list[str], scores_N: npt.NDArray[Any], maps_NHW: npt.NDArray[Any]) -> None:
        """Larger is more anomalous; the maps are as large as the input."""
        np.savez(
            self._out.with_suffix(".npz"), files=np.array(files), scores=scores_N.astype(np.float64),
            maps=maps_NHW.astype(np.float32),
        )  # fmt: skip

    def write(self, **versions: str) -> None:
        self._out.write_text(json.dumps({**self._found, "versions": versions}), encoding="utf-8")


def arguments(description: str | None) -> tuple[Job, Log]:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    return Job(**json.loads(options.job.read_text(encoding="utf-8"))), Log(options.out)
