"""Which model answers now. A request stays with the model that it began with; a replaced one ends with its last."""

from __future__ import annotations

import threading

from .metrics import Metrics
from .refusal import busy
from .runner import Runner


class Desk:
    """Args:
    queue: images that may be open at a time.
    """

    def __init__(self, queue: int, metrics: Metrics) -> None:
        self._queue, self._metrics = queue, metrics
        self._lock = threading.Lock()
        self._open = 0
        self._current: Runner | None = None
        self.draining = False

    @property
    def current(self) -> Runner | None:
        return self._current

    @property
    def ready(self) -> bool:
        return self._current is not None and not self.draining

    def admit(self, images: int) -> Runner:
        """The model for a request with so many images; `settle` it once for each.

        Raises:
            Refusal: there is none yet, or too many images are waiting.
        """
        with self._lock:
            if self._current is None:
                raise busy("the model is being loaded; try again", "loading")
            if self._open + images > self._queue:
                raise busy("too many images are waiting; try again", "queue_full")
            self._open += images
            self._current.open += images
            self._metrics.queue.set(self._open)
            return self._current

    def settle(self, runner: Runner, images: int) -> None:
        with self._lock:
            self._open -= images
            runner.open -= images
            self._metrics.queue.set(self._open)
            self._end_if_replaced(runner)

    def swap(self, runner: Runner) -> None:
        with self._lock:
            before, self._current = self._current, runner
            self._metrics.serves(runner.name, runner.version)
            if before is not None:
                self._end_if_replaced(before)

    def _end_if_replaced(self, runner: Runner) -> None:
        if runner is not self._current and not runner.open:
            runner.stop()
