"""Loads the model, then follows its alias: a new version is fetched, verified and tried before it answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from graft.tasks.common.core.paths import find_root

from ...tracking.store import has_store
from ..loading import CHAMPION, PACKAGE, Predictor, named, open_model
from .desk import Desk
from .metrics import Metrics
from .runner import Runner
from .settings import Settings

LOG = logging.getLogger("graft.serve")

SLOWEST = 16
"""A version that fails is tried again after 1, 2, 4, ... polls, at most so many."""


@dataclass
class Follower:
    """A thread of its own.

    Attributes:
        ended: is called once if the first model cannot be loaded; `error` has the reason.
    """

    settings: Settings
    desk: Desk
    metrics: Metrics
    decoders: Executor
    ended: Callable[[], None]
    error: Exception | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _wait: int = 0
    _failures: int = 0
    _failed: str = ""

    def start(self) -> None:
        """Raises:
        GraftError: the first model cannot be loaded, and was to be before all else.
        """
        if self.settings.load_first:
            self._serve(self.settings.model)
        threading.Thread(target=self._run, name="follower", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            if self.desk.current is None:
                self._serve(self.settings.model)
        except Exception as error:  # noqa: BLE001  (told to the user when the server has ended)
            self.error = error
            self.ended()
            return
        while self.settings.poll and not self._stop.wait(self.settings.poll):
            self.look()

    def look(self) -> None:
        """Swaps the model if the alias has moved. A failure keeps the one that answers."""
        wanted = None
        try:
            wanted = self._moved()
            if wanted is not None and not self._put_off(wanted):
                self._serve(wanted)
                self._failed = ""
                self.metrics.swaps.labels("swapped").inc()
        except Exception as error:  # noqa: BLE001  (whatever it is, the model before it answers)
            self._fail(wanted, error)

    def _put_off(self, wanted: str) -> bool:
        """Whether a version that has failed is to be tried later. Another one is tried at once."""
        if wanted != self._failed:
            self._failures = 0
            return False
        self._wait -= 1
        return self._wait >= 0

    def _fail(self, wanted: str | None, error: Exception) -> None:
        self._failed, self._failures = wanted or "", self._failures + 1
        self._wait = min(2**self._failures // 2, SLOWEST)
        self.metrics.swaps.labels("failed").inc()
        LOG.error("the new version is not served, the one before it still is: %s", str(error).replace("\n", " "))

    def _serve(self, wanted: str | None) -> None:
        with open_model(wanted, Path(self.settings.project)) as predictor:
            runner = self._runner(predictor)
        self.desk.swap(runner)
        LOG.info("%s answers now", runner.where)

    def _runner(self, predictor: Predictor) -> Runner:
        return Runner(predictor, self.settings.streams, self.decoders, self.metrics)

    def _moved(self) -> str | None:
        """What to open if the alias points to another version than the one that answers; else None."""
        alias = self._alias()
        if alias is None:
            return None
        from ...registry.models import version_at
        from ...tracking.tracker import Tracker

        root = find_root(Path(self.settings.project))
        if not has_store(root):
            return None
        name, which = named(alias, root)
        version = version_at(Tracker(root), name, which)
        served = self.desk.current
        same = not version or (served is not None and (served.name, served.version) == (name, version))
        return None if same else f"{name}/{version}"

    def _alias(self) -> str | None:
        """The alias to follow; None for a package, or a version by its number."""
        wanted = self.settings.model
        if wanted is None:
            served = self.desk.current
            return CHAMPION if served is None or served.version or served.where == PACKAGE else None
        number = wanted.removeprefix("models:/").rpartition("/")[2].isdecimal()
        is_package = wanted == "package" or Path(wanted).is_dir()
        return None if number or is_package else wanted
