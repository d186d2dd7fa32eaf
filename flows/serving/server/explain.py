"""Saliency on demand. It takes a hundred times as long as an answer, so one picture at a time, and few may wait."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

from graft.tasks.register.serving import ImageClassifier

from ..saliency import saliency
from .refusal import busy
from .runner import Runner, refusal_of

WAITING = 8


class Explainer:
    """A thread of its own, so that pictures that are explained delay no others in the queue."""

    def __init__(self, timeout: float) -> None:
        self._timeout, self._open = timeout, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")

    async def overlay(self, runner: Runner, content: bytes) -> bytes:
        """A PNG: the picture, with the parts that decided the answer.

        Raises:
            Refusal: it is not an image that can be read, too many are waiting, or it takes too long.
        """
        if self._open >= WAITING:
            raise busy("too many pictures are waiting to be explained; try again", "queue_full")
        self._open += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, _overlay, runner.classifier, content
                )
        except TimeoutError:
            raise busy("the explanation took too long; try again", "timeout") from None
        except (ValueError, OSError, MemoryError) as error:
            raise refusal_of(error) from None
        finally:
            self._open -= 1


def _overlay(classifier: ImageClassifier, content: bytes) -> bytes:
    written = io.BytesIO()
    saliency(classifier, content).save(written, "PNG")
    return written.getvalue()
