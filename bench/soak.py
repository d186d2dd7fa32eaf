"""`graft serve` under load for minutes: pictures of 1 KB to 30 MB, garbage, model swaps, then SIGTERM.

    python -m bench.soak --project FOLDER --photos FOLDER [--minutes 10] [--clients 32]

FOLDER is a project with a registered champion. The alias `soak` of its model is moved between its two newest versions
five times. Prints statuses, what each kind of garbage was answered, memory over time, and what SIGTERM left unanswered;
the exit code is 1 if an answer was a 5xx other than 503, garbage was answered with anything but 4xx, a good picture was
refused, memory grew by 5 % or more, or an accepted request got no answer.
"""

from __future__ import annotations

import argparse
import http.client
import io
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from .doors import serving

GARBAGE = 0.05
"""The share of requests that are no pictures."""

SWAPS = 5

WARM = 0.25
"""Of the time, after which memory must not grow."""


@dataclass
class Tally:
    good: Counter[int] = field(default_factory=Counter)
    bad: Counter[tuple[str, int]] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    after_term: Counter[str] = field(default_factory=Counter)


def pictures(photos: Path) -> list[bytes]:
    """Photographs, and pictures from 1 KB to 30 MB: small, large, deep and flat, as users send them."""
    files = sorted(photos.rglob("*.jpg"))
    found = [file.read_bytes() for file in files[:: max(1, len(files) // 60)]]
    noise = np.random.default_rng(0).integers(0, 256, (3200, 3200, 3), np.uint8)
    for side, form in ((16, "JPEG"), (64, "PNG"), (300, "WEBP"), (1500, "JPEG"), (3200, "PNG")):
        stream = io.BytesIO()
        Image.fromarray(noise[:side, :side]).save(stream, form)
        found.append(stream.getvalue())
    return found


def garbage(good: list[bytes]) -> dict[str, bytes]:
    bomb = io.BytesIO()
    Image.new("1", (60_000, 60_000)).save(bomb, "PNG")
    return {
        "text": b"no picture at all",
        "empty": b"",
        "cut": good[0][: len(good[0]) // 3],
        "zeros": bytes(100_000),
        "path": b"/etc/passwd",
        "url": b"file:///etc/passwd",
        "bomb": bomb.getvalue(),
        "too many bytes": good[0] + bytes(40 * 2**20),
    }


class Client(threading.Thread):
    def __init__(self, port: int, good: list[bytes], bad: dict[str, bytes], seed: int, tally: Tally) -> None:
        super().__init__(daemon=True)
        self._port, self._good, self._bad, self._tally = port, good, bad, tally
        self._draw = random.Random(seed)
        self.stop = self.term = False

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while not self.stop:
            name = self._draw.choice(list(self._bad)) if self._draw.random() < GARBAGE else ""
            body = self._bad[name] if name else self._pick()
            sent = False
            try:
                connection.request("POST", "/predict", body, {"Content-Type": "application/octet-stream"})
                sent = True
                answer = connection.getresponse()
                answer.read()
                self._count(name, answer.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._failed(error, sent)

    def _pick(self) -> bytes:
        """Mostly photographs; the largest of all seldom."""
        place = self._draw.randrange(len(self._good))
        return self._good[place] if place < len(self._good) - 2 or self._draw.random() < 0.2 else self._good[0]

    def _count(self, name: str, status: int) -> None:
        if self.term:
            self._tally.after_term[str(status)] += 1
        elif name:
            self._tally.bad[name, status] += 1
        else:
            self._tally.good[status] += 1

    def _failed(self, error: Exception, sent: bool) -> None:
        """A new connection after SIGTERM is refused, which is right; a request on a kept one may race with its end."""
        kind = f"{type(error).__name__} {'after' if sent else 'before'} it was sent"
        (self._tally.after_term if self.term else self._tally.lost)[kind] += 1
        if self.term:
            self.stop = True


def resident(process: psutil.Process) -> int:
    """Bytes of the server and its processes."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    asked = parser.parse_args()
    good = pictures(asked.photos)
    bad = garbage(good)
    versions = newest(asked.project)
    move(asked.project, versions[0])
    tally = Tally()
    with serving(asked.project, "--model", "graft@soak", "--poll", "2") as (port, server):
        clients = [Client(port, good, bad, seed, tally) for seed in range(asked.clients)]
        for client in clients:
            client.start()
        memory = watch(psutil.Process(server.pid), asked.minutes, asked.project, versions)
        for client in clients:
            client.term = True
        server.send_signal(signal.SIGTERM)
        code = server.wait(120)
        for client in clients:
            client.stop = True
        for client in clients:
            client.join(130)
    sys.exit(verdict(tally, memory, code))


def watch(server: psutil.Process, minutes: float, project: Path, versions: list[str]) -> list[int]:
    """Megabytes every few seconds, while the alias moves."""
    began, swapped, found = time.monotonic(), 0, []
    while (passed := time.monotonic() - began) < 60 * minutes:
        found.append(resident(server) // 10**6)
        if passed > 60 * minutes * (swapped + 1) / (SWAPS + 1):
            swapped += 1
            move(project, versions[swapped % len(versions)])
        time.sleep(2)
    return found


def _client(project: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{project.resolve() / 'mlflow.db'}")


def newest(project: Path) -> list[str]:
    found = _client(project).search_model_versions("name = 'graft'")
    return [str(each.version) for each in found[:2]]


def move(project: Path, version: str) -> None:
    _client(project).set_registered_model_alias("graft", "soak", version)


def verdict(tally: Tally, memory: list[int], code: int) -> int:
    warm = memory[int(WARM * len(memory)) :]
    third = max(1, len(warm) // 3)
    before, after = float(np.median(warm[:third])), float(np.median(warm[-third:]))
    growth = after / before - 1
    refused = {f"{name} {status}": count for (name, status), count in sorted(tally.bad.items())}
    print(f"good pictures: {dict(tally.good)}\ngarbage: {refused}\nwithout an answer: {dict(tally.lost)}")
    print(f"after SIGTERM: {dict(tally.after_term)}, exit code {code}")
    print(f"memory: {before:.0f} -> {after:.0f} MB ({growth:+.1%}), at most {max(memory)} MB")
    faults = [
        any(status not in (200, 503) for status in tally.good),
        any(not 400 <= status < 500 and status != 503 for _, status in tally.bad),
        bool(tally.lost),
        growth >= 0.05,
        code != 0,
        any(
            status.isdecimal() and status not in ("200", "503") and not status.startswith("4")
            for status in tally.after_term
        ),
    ]
    print("ok" if not any(faults) else f"FAULTS: {faults}")
    return int(any(faults))


if __name__ == "__main__":
    main()
