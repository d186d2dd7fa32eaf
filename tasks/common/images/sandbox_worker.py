"""The process of `sandbox`: bytes of files in, pixels out, within limits that the system enforces.

A request is a line of JSON and the bytes; an answer is a line of JSON and the rows of each image.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from .decode import Decoded, decode_here
from .limits import MB, Limits
from .strips import strips
from .unreadable import Refused, UnreadableImage, WrongForm

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
        limits = Limits(**asked["limits"])
        _confine(limits)
        try:
            decoded = decode_here(content, asked["channels"], limits)
            _send(answers, _described(decoded))
            _send_pixels(answers, decoded)
        except MemoryError:
            _fail(answers, Refused(TOO_MUCH.format(limits.max_memory_mb)))
        except UnreadableImage as error:
            _fail(answers, error)


def _confine(limits: Limits) -> None:
    """Another image's worth of memory and processor time, from now on."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; the clock of the process that asks remains
        return
    seconds = math.ceil(time.process_time() + limits.max_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    memory = _used() + limits.max_memory_mb * MB
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


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


def _fail(answers: BinaryIO, error: UnreadableImage) -> None:
    kind = next(one for one in (Refused, WrongForm, UnreadableImage) if isinstance(error, one))
    _send(answers, {"error": kind.__name__, "text": str(error)})


def _send(answers: BinaryIO, told: dict[str, object]) -> None:
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()
