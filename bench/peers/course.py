"""What every trainer is told, and what it logs. Standard library only: trainers have an environment of their own."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .measurements import STARTED

WARM = 2
"""Steps before the clock: the first ones make what torch keeps."""

STEPS = 3
"""Steps after them, whose median is the rate."""


@dataclass(frozen=True)
class Plan:
    """The same for all.

    Attributes:
        weights: a safetensors file of the pre-trained network without its classifier, by timm's names.
        size: of the input, in pixels.
        train, held: (file, class code) of the images to learn from, and of those on which all are judged.
        test: of one image a class that nobody looks at.
        steps: as `STEPS`; fewer in a smoke test.
        epochs: of a smoke test; otherwise null, and each trainer has its own number.
    """

    backbone: str
    weights: str
    size: int
    classes: list[str]
    train: list[tuple[str, int]]
    held: list[tuple[str, int]]
    test: list[tuple[str, int]]
    steps: int = STEPS
    epochs: int | None = None


def arguments(description: str | None) -> tuple[Plan, str, Course]:
    """(plan, `rate` or `accuracy`, log)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--what", choices=["rate", "accuracy"], required=True)
    options = parser.parse_args()
    return Plan(**json.loads(options.plan.read_text(encoding="utf-8"))), options.what, Course(options.out)


class Course:
    """A trainer's log: how right it was on the held-out images, and when, in seconds since its process was started."""

    def __init__(self, out: Path) -> None:
        self._out, self._started = out, float(os.environ[STARTED])
        self._epochs: list[tuple[float, float]] = []

    def epoch(self, accuracy: float, seconds: float | None = None) -> None:
        """Equal shares are equal numbers, however a trainer has computed them."""
        now = time.time() - self._started if seconds is None else seconds
        self._epochs.append((round(now, 2), round(accuracy, 6)))

    def since_start(self) -> float:
        return time.time() - self._started

    def write(self, *, pure: float | None = None, from_files: float | None = None, **facts: str) -> None:
        """
        Args:
            pure: images per second of a training step on images that are there.
            from_files: of one on images that are read, decoded and augmented meanwhile.
        """
        content = {
            "seconds": round(self.since_start(), 2),
            "epochs": self._epochs,
            "pure": pure,
            "from_files": from_files,
            "facts": facts,
        }
        self._out.write_text(json.dumps(content), encoding="utf-8")


class Laps:
    """Images per second of a step, from step to step."""

    def __init__(self, images: int, steps: int) -> None:
        self._images, self._steps, self._times = images, steps, [time.perf_counter()]

    def step(self) -> None:
        self._times.append(time.perf_counter())

    @property
    def done(self) -> int:
        return len(self._times) - 1

    @property
    def enough(self) -> bool:
        return self.done >= WARM + self._steps

    @property
    def rate(self) -> float:
        between = [b - a for a, b in zip(self._times, self._times[1:], strict=False)]
        return self._images / median(between[WARM:])
