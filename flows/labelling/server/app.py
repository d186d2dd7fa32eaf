"""The addresses of the label page."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.responses import Response

from graft.tasks.common.core.errors import GraftError
from graft.tasks.preprocess.label_history import DISCARD, UNSURE

from ...serving.server.docs import POLICY
from ...serving.server.refusal import Refusal
from ...serving.server.replies import refused, reply
from ..queues import QUEUES
from .labels import checked
from .room import LARGE, SMALL, Room, facts

STATIC = {"page.js": "text/javascript", "page.css": "text/css"}

AHEAD = 4
"""Images that a page may hold at a time."""

GRID = 60
"""Thumbnails of a grid."""


class Said(BaseModel):
    """An answer; `label` may be special."""

    image_id: str = Field(pattern="^[0-9a-f]{32}$")
    label: str = Field(max_length=500)
    who: str = Field(min_length=1, max_length=100)
    why: str = Field(default="", max_length=100)


class Several(BaseModel):
    """Answers of one person about a grid."""

    answers: list[Said] = Field(min_length=1, max_length=GRID)


class About(BaseModel):
    """An image and a person."""

    who: str = Field(min_length=1, max_length=100)
    image_id: str = Field(default="", pattern="^([0-9a-f]{32})?$")


def build(room: Room, *, key: bool) -> FastAPI:
    app = FastAPI(title="Graft: labels", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(GraftError, _failed)
    app.add_exception_handler(OSError, _failed)
    _add_page(app, key=key)
    _add_reading(app, room)
    _add_answers(app, room)
    return app


async def _refused(_request: Any, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


async def _failed(_request: Any, error: Exception) -> Response:
    """A full disk, or an image that was removed: the person sees why, and the answer does not count as given."""
    return reply({"error": str(error).splitlines()[0]}, 500)


def _add_page(app: FastAPI, *, key: bool) -> None:
    folder = files("graft.flows.labelling.server") / "page"
    static = {name: (folder / name).read_bytes() for name in STATIC}
    index = (folder / "index.html").read_text(encoding="utf-8").replace("NEEDS-KEY", "yes" if key else "no")

    @app.get("/")
    async def page() -> Response:
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(index, headers=headers, media_type="text/html")

    @app.get("/static/{name}")
    async def file(name: str) -> Response:
        if name not in static:
            raise Refusal(404, "there is nothing at this address", "address")
        return Response(static[name], headers={"cache-control": "no-cache"}, media_type=STATIC[name])

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)


def _add_reading(app: FastAPI, room: Room) -> None:
    @app.get("/api/state")
    async def state() -> Response:
        return reply({
            "task": room.task,
            "classes": room.classes,
            "queues": [{"name": name, "title": title} for name, title in QUEUES.items()],
            "left": room.desk.left(),
            "discard": DISCARD,
            "unsure": UNSURE,
            **room.desk.progress(),
        })  # fmt: skip

    @app.get("/api/next")
    async def following(queue: str, who: str, count: int = 1) -> Response:
        if queue not in QUEUES or not who.strip() or not 1 <= count <= AHEAD:
            raise Refusal(400, "the queue, the name or the number of images is not right", "malformed")
        items = await asyncio.to_thread(room.next, queue, who.strip(), count)
        return reply({"items": facts(items, room), "left": room.desk.left(), **room.desk.progress()})

    @app.get("/api/grid")
    async def grid(queue: str, who: str, guess: str = "") -> Response:
        if queue not in QUEUES or not who.strip():
            raise Refusal(400, "the queue or the name is not right", "malformed")
        items = await asyncio.to_thread(room.grid, queue, who.strip(), guess, GRID)
        return reply({"items": facts(items, room), "guesses": room.desk.guesses(queue), "left": room.desk.left()})

    @app.get("/api/neighbours/{image_id}")
    async def neighbours(image_id: str) -> Response:
        found = await asyncio.to_thread(room.neighbours, image_id) if room.has(image_id) else []
        return reply({"neighbours": [asdict(one) for one in found]})

    @app.get("/api/image/{image_id}")
    async def image(image_id: str, small: bool = False) -> Response:
        if not room.has(image_id):
            raise Refusal(404, "the project has no such image", "address")
        content = await asyncio.to_thread(room.picture, image_id, SMALL if small else LARGE)
        return Response(content, headers={"cache-control": "private, max-age=86400"}, media_type="image/jpeg")


def _add_answers(app: FastAPI, room: Room) -> None:
    def take(said: Said) -> None:
        if not room.has(said.image_id):
            raise Refusal(404, "the project has no such image", "address")
        label = checked(said.label, room.task)
        room.desk.answer(said.image_id, label, said.who.strip(), " ".join(said.why.split()))

    @app.post("/api/answer")
    async def answer(said: Said) -> Response:
        await asyncio.to_thread(take, said)
        return reply({"left": room.desk.left(), "classes": room.classes_with(said.label), **room.desk.progress()})

    @app.post("/api/answers")
    async def answers(several: Several) -> Response:
        for said in several.answers:
            await asyncio.to_thread(take, said)
        return reply({"left": room.desk.left(), **room.desk.progress()})

    @app.post("/api/undo")
    async def undo(about: About) -> Response:
        image_id = await asyncio.to_thread(room.desk.undo, about.who.strip())
        item = room.desk.item(image_id) if image_id else None
        return reply({"items": facts([item] if item else [], room), "left": room.desk.left(), **room.desk.progress()})

    @app.post("/api/skip")
    async def skip(about: About) -> Response:
        room.desk.skip(about.image_id, about.who.strip())
        return reply({"left": room.desk.left()})
