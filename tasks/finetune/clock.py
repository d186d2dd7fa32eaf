"""Time that training takes."""

from __future__ import annotations

import time

import numpy as np


class Clock:
    """Args:
    before: seconds that were spent earlier.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._started = before, time.perf_counter()
        self._laps: list[float] = []
        self._last = self._started

    def total(self) -> float:
        return self._before + time.perf_counter() - self._started

    def lap(self, images: int) -> None:
        """Ends a lap with so many images; a lap without images does not count."""
        now = time.perf_counter()
        if images:
            self._laps.append((now - self._last) / images)
        self._last = now

    @property
    def seconds_each(self) -> float:
        """The median over the laps, per image."""
        return float(np.median(self._laps))
