"""Decoding in a process of its own, which is stopped when an image takes too long or too much memory, or crashes the
library that decodes it. Only images whose header cannot bound that come here; see `formats.cost_of`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from . import sandbox_worker
from .decode import Decoded
from .limits import LARGE, MB, Limits
from .palette import Palette
from .strips import strips
from .unreadable import Refused, TooLittle, UnreadableImage, WrongForm

MAPPED = str(MB)
"""Bytes from which the C library of a process gives memory back as soon as it is freed, see mallopt(3)."""

WAITS = 3
"""A process may take so many times `max_seconds` by the clock: on a busy machine it has less than one processor."""

_ERRORS: dict[str, type[UnreadableImage]] = {
    "TooLittle": TooLittle,
    "Refused": Refused,
    "WrongForm": WrongForm,
    "UnreadableImage": UnreadableImage,
}

_BYTES = {"L": 1, "I;16": 2, "RGB": 3, "I": 4, "F": 4}
"""Bytes per pixel, by the modes of decoded images."""

_idle: list[_Worker] = []
_lock = threading.Lock()


@dataclass(frozen=True)
class Share:
    """What one attempt may take: bytes, of the file here and of what the process needs more; seconds of a processor."""

    bytes: int
    seconds: float

    @classmethod
    def whole(cls, limits: Limits) -> Share:
        return cls(limits.max_memory_mb * MB, limits.max_seconds)


def decode_apart(content: bytes, channels: int, limits: Limits, share: Share | None = None) -> Decoded:
    """`decode.decode_here` in another process, which is started when none is idle.

    Args:
        share: less than the limits allow.

    Raises:
        TooLittle: the share of the memory is too small.
        UnreadableImage: like `decode_here`; a `Refused` names the limit that was exceeded.
    """
    with _lock:
        worker = _idle.pop() if _idle else None
    worker = worker or _Worker()
    fresh = False
    try:
        found = worker.ask(content, channels, limits, share or Share.whole(limits))
        size = len(content) + sum(4 * image.width * image.height for image in found.picture)
        fresh = size < LARGE  # otherwise it ends, so that its memory is free again
        return found
    except UnreadableImage:
        fresh = worker.alive and len(content) < LARGE
        raise
    finally:
        if fresh:
            with _lock:
                _idle.append(worker)
        else:
            worker.stop()


class _Worker:
    """A process that decodes one image after the other."""

    def __init__(self) -> None:
        module = sandbox_worker.__name__
        root = Path(__file__).parents[module.count(".")]
        program = f"import sys; sys.path.insert(0, {str(root)!r}); from {module} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_THRESHOLD_": MAPPED,
            },
        )
        self._line()  # it is ready: starting does not count as decoding
        self.alive = True

    def ask(self, content: bytes, channels: int, limits: Limits, share: Share) -> Decoded:
        timer = threading.Timer(WAITS * share.seconds, self._process.kill)
        timer.start()
        try:
            return self._asked(content, channels, limits, share)
        except (OSError, EOFError):
            self.alive = False
        finally:
            timer.cancel()
        raise self._why(limits)  # not in `except`: its traceback would keep the pixels that have come so far

    def _asked(self, content: bytes, channels: int, limits: Limits, share: Share) -> Decoded:
        assert self._process.stdin is not None
        given = {"memory": max(0, share.bytes - len(content)), "seconds": share.seconds}
        asked = {"channels": channels, "limits": asdict(limits), "bytes": len(content), **given}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.write(content)
        self._process.stdin.flush()
        told = json.loads(self._line())
        if "error" in told:
            raise _ERRORS[told.pop("error")](*told.values())
        picture = tuple(self._image(one["mode"], tuple(one["size"])) for one in told["picture"])
        return Decoded(told["mode"], picture, Palette(**told["palette"]) if told["palette"] else None)

    def _image(self, mode: str, size: tuple[int, int]) -> Image.Image:
        image = Image.new(mode, size)
        for top, part in strips(image):
            content = self._read(part.width * part.height * _BYTES[mode])
            image.paste(Image.frombytes(mode, part.size, content), (0, top))
        return image

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def _why(self, limits: Limits) -> UnreadableImage:
        """Why the process has ended."""
        code = self._process.wait()
        if code in (-signal.SIGPROF, -signal.SIGKILL):
            return Refused(f"too slow: not decoded in {limits.max_seconds:g} seconds, see `preprocess.max_seconds`")
        return UnreadableImage(f"it crashes the library that decodes it (exit code {code})")

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _forget() -> None:
    """A fork must not talk to its parent's processes."""
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
