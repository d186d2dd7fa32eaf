"""From the bytes of a request to answers: within the queue, in time, counted and logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from .desk import Desk
from .exchange import Buffered, body_of
from .metrics import Metrics
from .refusal import Refusal, busy
from .runner import Answer, Runner
from .settings import MB, Settings

Outcome = Answer | Refusal

LOADING = 0.05
"""Seconds between two looks whether the first model is there."""

Result = TypeVar("Result")


class Journal(Protocol):
    """What keeps answers."""

    def keep(self, content: bytes, answer: Answer, version: str, seconds: float) -> None: ...


class Service:
    """Args:
    journal: None keeps nothing.
    """

    def __init__(self, settings: Settings, desk: Desk, metrics: Metrics, journal: Journal | None = None) -> None:
        self.settings, self.desk, self.metrics, self._journal = settings, desk, metrics, journal
        self._buffered = Buffered()

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, as long as the block lasts.

        Raises:
            Refusal: it is encoded, too large, or comes too slowly.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "compressed bodies are not taken; send images as they are", "content_type")
        most, declared = self.settings.max_request_bytes, request.headers.get("content-length")
        body = await body_of(request.stream(), declared, most, self._buffered)
        try:
            yield body
        finally:
            self._buffered.used -= len(body)

    async def loaded(self) -> Runner:
        """The model that answers now; at the start, once it is there.

        Raises:
            Refusal: it takes longer than an answer may.
        """
        until = time.monotonic() + self.settings.timeout
        while (runner := self.desk.current) is None:
            if time.monotonic() > until:
                raise busy("the model is being loaded; try again", "loading")
            await asyncio.sleep(LOADING)
        return runner

    async def ask(self, images: Sequence[bytes | Refusal], *, with_maps: bool = False) -> tuple[Runner, list[Outcome]]:
        """An answer to each image, or why there is none; and the model that gave them.

        Args:
            with_maps: each answer with `map`, a heat map.

        Raises:
            Refusal: there are too many images waiting, it took too long, or the model has no maps.
        """
        contents = [image for image in images if isinstance(image, bytes)]
        await self.loaded()
        runner, began = self.desk.admit(len(contents)), time.perf_counter()
        try:
            if with_maps and not runner.has_maps:
                raise Refusal(400, "this model has no maps; ask without ?map=true, or ask /saliency", "no_map")
            found = iter(await self._answers(runner, contents, with_maps))
        finally:
            self.desk.settle(runner, len(contents))
        outcomes = [next(found) if isinstance(image, bytes) else image for image in images]
        self._note(images, outcomes, runner, time.perf_counter() - began)
        return runner, outcomes

    async def _answers(self, runner: Runner, contents: list[bytes], with_maps: bool) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        jobs = (runner.submit(content, loop, with_maps) for content in contents)
        waiting = asyncio.gather(*jobs, return_exceptions=True)
        try:
            async with asyncio.timeout(self.settings.timeout):
                found = await waiting
        except TimeoutError:
            raise busy("the answer took too long; try again", "timeout") from None
        for outcome in found:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Refusal):
                raise outcome
        return found  # type: ignore[return-value]

    def _note(self, images: Sequence[bytes | Refusal], outcomes: list[Outcome], runner: Runner, seconds: float) -> None:
        for image, outcome in zip(images, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                self.metrics.refuse(outcome)
            elif self._journal is not None and isinstance(image, bytes):
                self._journal.keep(image, outcome, runner.version, seconds)


async def aside(size: int, work: Callable[..., Result], *given: Any) -> Result:
    """Runs `work` on another thread if it is about many bytes: meanwhile others are answered."""
    return await asyncio.to_thread(work, *given) if size > MB else work(*given)
