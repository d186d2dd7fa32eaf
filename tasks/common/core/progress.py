"""Progress with rate and remaining time: a line that rewrites itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PROTOCOL = "GRAFT_PROGRESS"
"""When this variable is `json`, progress is one JSON object a line, for a program to read."""

MARK = "::progress "
"""What such a line starts with."""

FAILURE = "::failure "
"""What a line starts with that tells the program why a stage failed: `io`, `user` or `other`."""


class Progress:
    """Counts done work and says so at most every `every` seconds; silent for what ends within `patience` seconds.

    Args:
        what: what is being done, as the user would say it.
        total: how many units there are.
        unit: the name of one unit.
    """

    def __init__(self, what: str, total: int, unit: str = "images", stream: TextIO | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._stream = stream or sys.stderr
        self._json = os.environ.get(PROTOCOL) == "json"
        self._tty = not self._json and self._stream.isatty()
        self._start = self._said = time.monotonic()
        self._every, self._patience = (0.2, 0.5) if self._tty else (1.0, 0.0) if self._json else (5.0, 2.0)
        self._drawn = False

    def add(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self._said >= self._every and now - self._start >= self._patience:
            self._said = now
            self._draw(now - self._start)

    def close(self, *, well: bool = True) -> None:
        """Ends the line; `well` tells a program that waits for the total that there is nothing left to do."""
        if self._drawn:
            if self._json and well:
                self.total = self.done
            self._draw(time.monotonic() - self._start, last=True)

    def _draw(self, seconds: float, *, last: bool = False) -> None:
        self._drawn = True
        rate = self.done / seconds if seconds > 0 else 0.0
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        if self._json:
            state = {"what": self.what, "done": self.done, "total": self.total, "rate": round(rate, 2)}
            self._stream.write(f"{MARK}{json.dumps(state)}\n")
        else:
            text = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s"
            text += f", {_clock(seconds)} in all" if last else f", {_clock(left)} left"
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if last else "") if self._tty else f"{text}\n")
        self._stream.flush()


@contextmanager
def progress(what: str, total: int, unit: str = "images") -> Iterator[Progress]:
    """A `Progress` that ends its line whatever happens."""
    bar = Progress(what, total, unit)
    try:
        yield bar
    except BaseException:
        bar.close(well=False)
        raise
    bar.close()


def say(text: str) -> None:
    """A plain line for the user, beside the progress lines."""
    print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say_failure(kind: str) -> None:
    """Tells the program that started the stage, if one did, of what kind its failure is."""
    if os.environ.get(PROTOCOL) == "json":
        say(f"{FAILURE}{kind}")
