"""What was answered, in a folder: answers as Parquet, pictures by policy under their hash.

FOLDER/graft-log.json            what this folder is
FOLDER/answers/TIME-PID-N.parquet    written again every few seconds under another name, then renamed
FOLDER/images/unsure/AB/MD5, FOLDER/images/random/AB/MD5
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import write_shared, write_shared_json
from graft.tasks.common.data.task import BETWEEN

from ..columns import verdict
from .kept import ANSWERS, IMAGES, MARK, RANDOM, UNSURE
from .metrics import ATYPICAL, Metrics
from .settings import MB, Settings

LOG = logging.getLogger("graft.serve")

ROWS, SECONDS = 10_000, 3600.0
"""Of one file of answers."""

NEARLY = 0.1
"""A picture with a smaller p-value is anomalous, or nearly so."""

WAITING = 5000
"""Answers that may wait for the disk; more are lost, and counted."""

WAITING_BYTES = 128 * MB
"""Of pictures that may wait for the disk."""

TRIM_SECONDS = 30.0

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", tz="UTC")),
        ("image", pa.string()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("probabilities", pa.map_(pa.string(), pa.float32())),
        ("value", pa.float64()),
        ("typicality", pa.float64()),
        ("abstain", pa.bool_()),
        ("model", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""`image` is the md5 of the file; `label` of several classes has them separated by `|`, that of the task anomaly is
`good` or `anomalous`."""


@dataclass(frozen=True, slots=True)
class Entry:
    row: dict[str, Any]
    content: bytes
    reasons: tuple[str, ...]


class Journal:
    """A thread that writes.

    Raises:
        GraftError: the folder cannot be written to, or has something else.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._folder = prepare(Path(settings.log))
        self._entries: Queue[Entry | None] = Queue(WAITING)
        self._bytes, self._lock = 0, threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._part, self._began, self._number, self._trimmed = "", 0.0, 0, 0.0
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def keep(self, content: bytes, answer: dict[str, Any], version: str, seconds: float) -> None:
        """Never waits for the disk."""
        reasons = self._reasons(answer)
        entry = Entry(_row(content, answer, version, seconds), content if reasons else b"", reasons)
        with self._lock:
            fits = self._bytes + len(entry.content) <= WAITING_BYTES
        try:
            if not fits:
                raise Full
            self._entries.put_nowait(entry)
            self._count(len(entry.content))
        except Full:
            self._metrics.lost.inc()

    def close(self) -> None:
        """Writes what is left."""
        self._entries.put(None)
        self._thread.join()

    def _reasons(self, answer: dict[str, Any]) -> tuple[str, ...]:
        unsure = self._settings.keep_unsure and is_unsure(answer)
        chance = random.random() < self._settings.keep_random
        return (UNSURE,) * unsure + (RANDOM,) * chance

    def _count(self, size: int) -> None:
        with self._lock:
            self._bytes += size

    def _write(self) -> None:
        flushed, open_still = time.monotonic(), True
        while open_still:
            try:
                entry = self._entries.get(timeout=min(1.0, self._settings.log_seconds))
                open_still = entry is not None
                if entry is not None:
                    self._take(entry)
            except Empty:
                pass  # time to look at the clock
            if not open_still or time.monotonic() - flushed >= self._settings.log_seconds:
                self._safely(self._flush)
                flushed = time.monotonic()

    def _take(self, entry: Entry) -> None:
        self._rows.append(entry.row)
        for reason in entry.reasons:
            folder = self._folder / IMAGES / reason
            self._safely(partial(save_picture, folder, entry.row["image"], entry.content))
        self._count(-len(entry.content))
        if len(self._rows) >= ROWS:
            self._safely(self._flush)

    def _safely(self, work: Callable[[], None]) -> None:
        """A full disk must not stop the server."""
        try:
            work()
        except OSError as error:
            LOG.error("the log cannot be written: %s", error)
            self._metrics.lost.inc()
            del self._rows[:-ROWS]  # the latest are tried again

    def _flush(self) -> None:
        if self._rows:
            self._begin()
            write_shared(self._folder / ANSWERS / self._part, _parquet(self._rows))
            if len(self._rows) >= ROWS or time.time() - self._began > SECONDS:
                self._rows, self._part = [], ""
        if time.monotonic() - self._trimmed > TRIM_SECONDS:
            self._trimmed = time.monotonic()
            trim(self._folder, self._settings.log_max_mb * MB)

    def _begin(self) -> None:
        if not self._part:
            self._number += 1
            self._began = time.time()
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._began))
            self._part = f"{stamp}-{os.getpid()}-{self._number}.parquet"


def prepare(folder: Path) -> Path:
    """The folder, with its mark.

    Raises:
        GraftError: it cannot be written to, or has something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = [one.name for one in folder.iterdir() if one.name not in (MARK, ANSWERS, IMAGES)]
        if strangers and not (folder / MARK).is_file():
            raise GraftError(
                f"{folder} has other files than a log", got=strangers[0], todo="name a new folder with --log"
            )
        for name in (ANSWERS, f"{IMAGES}/{UNSURE}", f"{IMAGES}/{RANDOM}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_shared_json(folder / MARK, {"what": "answers of `graft serve`", "format": 1})
    except OSError as error:
        raise GraftError(
            f"the folder {folder} cannot be written to", got=error, todo="name another with --log"
        ) from None
    return folder


def is_unsure(answer: dict[str, Any]) -> bool:
    """It abstains, its set has several classes, its best class is not far ahead, or the picture is atypical or nearly
    anomalous."""
    if answer.get("abstain") or answer.get("typicality", 1.0) < ATYPICAL or answer.get("p_value", 1.0) < NEARLY:
        return True
    if len(answer.get("set", ())) > 1:
        return True
    best = sorted(answer.get("probabilities", {}).values(), reverse=True)[:2] if "label" in answer else []
    return len(best) == 2 and best[0] - best[1] < 0.2


def _row(content: bytes, answer: dict[str, Any], version: str, seconds: float) -> dict[str, Any]:
    return {
        "time": int(time.time() * 1e6),
        "image": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "label": _label(answer),
        "probabilities": list(answer.get("probabilities", {}).items()),
        "model": version,
        "seconds": seconds,
        **{name: answer.get(name) for name in ("score", "p_value", "value", "typicality", "abstain")},
    }


def _label(answer: dict[str, Any]) -> str | None:
    if "anomalous" in answer:
        return verdict(answer)
    return answer.get("label", BETWEEN.join(answer["labels"]) if "labels" in answer else None)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), written, compression="zstd")
    return written.getvalue()


def save_picture(folder: Path, md5: str, content: bytes) -> None:
    target = folder / md5[:2] / md5
    if not target.exists():
        write_shared(target, content)


def trim(folder: Path, most: int) -> None:
    """Deletes the oldest files until all take no more than `most` bytes."""
    found = []
    for path in [*(folder / ANSWERS).iterdir(), *(folder / IMAGES).glob("*/*/*")]:
        with suppress(FileNotFoundError):  # another process was faster
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    excess = sum(size for _, size, _ in found) - most
    for _, size, path in sorted(found, key=lambda one: one[0]):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
