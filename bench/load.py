"""Clients of a model server, cheap enough to share its machine: one process, plain sockets, only the standard library.

    python -m bench.load --port 8000 --path /predict --kind image/jpeg --bodies FOLDER --clients 8 --seconds 10

Each client keeps its connection and sends the next body as soon as it has the answer. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path


@dataclass
class Tally:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def requests_of(folder: Path, path: str, kind: str) -> list[bytes]:
    """Whole requests, headers and body."""
    bodies = [file.read_bytes() for file in sorted(folder.iterdir())]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: "
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


async def client(port: int, requests: list[bytes], first: int, until: float, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in count(first):
        if time.perf_counter() >= until:
            break
        began = time.perf_counter()
        writer.write(requests[number % len(requests)])
        status = await _answer(reader)
        tally.seconds.append(time.perf_counter() - began)
        tally.statuses[status] += 1
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"content-length:")
    if not found:
        raise ValueError(f"an answer without a length: {head[:200]!r}")
    await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    return head[9:12].decode()


async def load(port: int, requests: list[bytes], clients: int, seconds: float) -> Tally:
    tally, until = Tally(), time.perf_counter() + seconds
    await asyncio.gather(*(client(port, requests, 7 * number, until, tally) for number in range(clients)))
    return tally


def summary(tally: Tally, seconds: float) -> dict[str, object]:
    ordered = sorted(tally.seconds)
    return {
        "requests": len(ordered),
        "per_second": round(len(ordered) / seconds, 2),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
        "statuses": dict(tally.statuses),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    requests = requests_of(given.bodies, given.path, given.kind)
    began = time.perf_counter()
    tally = asyncio.run(load(given.port, requests, given.clients, given.seconds))
    print(json.dumps(summary(tally, time.perf_counter() - began)))


if __name__ == "__main__":
    main()
