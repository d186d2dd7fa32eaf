"""`graft serve` under load for minutes: pictures of all sizes, some garbage, and an alias that moves.

    python -m bench.soak --project FOLDER --photos FOLDER --minutes 10

FOLDER is a copy of a project with two registered versions; the alias `champion` goes back and forth between them. Ends
with 1 if an image got another status than 200 or 503, or garbage than 413, 422 or 503; if a request was lost; or if
SIGTERM under load lost one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from mlflow import MlflowClient
from PIL import Image

from .processes import ROOT, environment, say
from .serving import photographs

CLIENTS, SWAPS = 32, 5
GARBAGE = 0.05


def pictures(photos: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """(images of 1 KB to 30 MB, bytes that are none); most are photographs of the usual size."""
    rng = np.random.default_rng(0)
    sizes = [(24, 16), (600, 400), (1600, 1200), (4000, 2500)]
    made = [_encoded(rng.integers(0, 256, (height, width, 3), np.uint8), "PNG") for width, height in sizes]
    garbage = [
        b"text",
        bytes(1000),
        photos[0][: len(photos[0]) // 2],
        b"\x89PNG\r\n\x1a\n" + rng.bytes(5000),
        b"GIF89a",
    ]
    return [*photos, *made[:3], made[3]], garbage


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


class Clients:
    """Attributes:
    statuses: of all answers, apart for images and garbage.
    lost: requests without an answer while the server ran.
    """

    def __init__(self, port: int, images: list[bytes], garbage: list[bytes]) -> None:
        self.port, self.images, self.garbage = port, images, garbage
        self.statuses: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.lost: list[str] = []
        self.ending = False
        self.accepted_unanswered = 0

    async def run(self, number: int) -> None:
        rng = random.Random(number)
        while not self.ending:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                if not self.ending:
                    self.lost.append(f"connect: {error}")
                return
            await self._talk(reader, writer, rng)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
        closed = False
        while not closed and not self.ending:
            garbage = rng.random() < GARBAGE
            body = rng.choice(self.garbage if garbage else self.images)
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            try:
                writer.write(head + body)
                await writer.drain()
                status, closed, answer = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.accepted_unanswered += self.ending
                if not self.ending:
                    self.lost.append(repr(error))
                return
            self._note(garbage, status, answer)

    def _note(self, garbage: bool, status: str, answer: dict[str, object]) -> None:
        self.statuses[f"{'garbage' if garbage else 'image'} {status}"] += 1
        if status == "200":
            self.versions[str(answer["model"]["version"])] += 1  # type: ignore[index]
        elif not isinstance(answer.get("error"), str):
            self.lost.append(f"{status} without a reason")


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool, dict[str, object]]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    return head[9:12].decode(), b"connection: close" in head, json.loads(body)


async def swap(project: Path, seconds: float) -> None:
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    for number in range(SWAPS):
        await asyncio.sleep(seconds / (SWAPS + 1))
        version = str(2 - number % 2)
        await asyncio.to_thread(client.set_registered_model_alias, "graft", "champion", version)
        say(f"the champion is version {version}")


async def watch(process: psutil.Process, seconds: float, sizes: list[float]) -> None:
    """MiB of the server, ten times a minute."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sizes.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(6)


async def soak(process: subprocess.Popen[str], clients: Clients, project: Path, seconds: float) -> list[float]:
    sizes: list[float] = []
    running = [asyncio.create_task(clients.run(number)) for number in range(CLIENTS)]
    await asyncio.gather(swap(project, seconds), watch(psutil.Process(process.pid), seconds, sizes))
    clients.ending = True
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*running)
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    project = given.project.resolve()
    images, garbage = pictures(photographs(given.photos, 60))
    words = [sys.executable, "-m", "graft.flows.cli", "serve", "--port", "0", "--poll", "2", "--timeout", "60"]
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(words, cwd=project, env=environment(**more), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    clients = Clients(int(process.stdout.readline().split()[0].rpartition(":")[2]), images, garbage)
    sizes = asyncio.run(soak(process, clients, project, 60 * given.minutes))
    return verdict(clients, sizes, process.wait(120))


def verdict(clients: Clients, sizes: list[float], code: int) -> int:
    third = max(1, len(sizes) // 3)
    told = {
        "answers": dict(sorted(clients.statuses.items())),
        "versions": dict(clients.versions),
        "lost": clients.lost[:10],
        "lost_after_sigterm": clients.accepted_unanswered,
        "exit_code": code,
        "memory_mib_every_6_s": [round(size) for size in sizes],
        "memory_mib": {"first_third": round(median(sizes[:third])), "last_third": round(median(sizes[-third:]))},
    }
    print(json.dumps(told, indent=2))
    good = {"image 200", "image 503", "garbage 503", *(f"garbage {status}" for status in (413, 422))}
    return int(bool(clients.lost or clients.accepted_unanswered or code or clients.statuses.keys() - good))


if __name__ == "__main__":
    sys.exit(main())
