"""The process of `sandbox`: bytes of files in, pixels out, within limits that the system enforces.

A request is a line of JSON and the bytes; an answer is a line of JSON and the rows of each image.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from .decode import Decoded, decode_here
from .limits import MB, Limits
from .strips import strips
from .unreadable import Refused, TooLittle, UnreadableImage, WrongForm

TOO_MUCH = "too large: decoding takes more than {:,} MB, see `preprocess.max_memory_mb`"


def main() -> None:
    """Answers until the input ends, as it does with the process that asks."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not disturb the answers
    requests = sys.stdin.buffer
    _send(answers, {})
    while line := requests.readline():
        asked = json.loads(line)
        content = requests.read(asked["bytes"])
        _bound_seconds(asked["seconds"])
        _answer(answers, content, asked)
        _bound_seconds(0.0)


def _answer(answers: BinaryIO, content: bytes, asked: dict[str, Any]) -> None:
    began, limits = time.process_time(), Limits(**asked["limits"])
    try:
        with _bounded_memory(asked["memory"]):
            decoded = decode_here(content, asked["channels"], limits)
        _send(answers, _described(decoded))
        _send_pixels(answers, decoded)
    except MemoryError:
        error = TooLittle(TOO_MUCH.format(limits.max_memory_mb), time.process_time() - began)
        _fail(answers, error, seconds=error.seconds)
    except UnreadableImage as error:
        _fail(answers, error)


def _bound_seconds(seconds: float) -> None:
    """After so many seconds of a processor SIGPROF ends the process; 0 is no limit."""
    if hasattr(signal, "setitimer"):  # not on Windows, where the clock of the process that asks remains
        signal.setitimer(signal.ITIMER_PROF, seconds)


@contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    """At most so many bytes more than now, within the block; what is sent after it needs little."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = _used() + size
    resource.setrlimit(resource.RLIMIT_AS, (allowed if most < 0 else min(allowed, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def _used() -> int:
    """Bytes of address space; none where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 1024 * MB
    return pages * os.sysconf("SC_PAGE_SIZE")


def _described(decoded: Decoded) -> dict[str, object]:
    picture = [{"mode": image.mode, "size": image.size} for image in decoded.picture]
    palette = asdict(decoded.palette) if decoded.palette else None
    return {"mode": decoded.mode, "palette": palette, "picture": picture}


def _send_pixels(answers: BinaryIO, decoded: Decoded) -> None:
    for image in decoded.picture:
        for _, part in strips(image):
            answers.write(part.tobytes())
    answers.flush()


def _fail(answers: BinaryIO, error: UnreadableImage, **more: float) -> None:
    kind = next(one for one in (TooLittle, Refused, WrongForm, UnreadableImage) if isinstance(error, one))
    _send(answers, {"error": kind.__name__, "text": str(error), **more})


def _send(answers: BinaryIO, told: dict[str, object]) -> None:
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()
