"""The pages: where pictures are dropped, and the list of addresses. No file of another server is loaded."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from .service import Service

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

STATIC = {"page.js": "text/javascript", "page.css": "text/css"}

_FILE = {"type": "string", "format": "binary"}
_STRING = {"type": "string", "contentEncoding": "base64"}
_STRINGS = {"type": "array", "items": _STRING}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


ANY_IMAGE = _body(
    {
        "image/*": {"schema": _FILE},
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}
        },
        "application/json": {
            "schema": {"type": "object", "properties": {"image": _STRING, "images": _STRINGS}}
        },
    }
)  # fmt: skip

PREDICTION = {
    **ANY_IMAGE,
    "parameters": [
        {
            "name": "map",
            "in": "query",
            "description": "Whether each answer of a model for anomaly or reconstruction has `map`, a PNG in base64: "
            "where it is anomalous, or the decoded image.",
            "schema": {"type": "boolean", "default": False},
        }
    ],
}

INFERENCE = _body({"application/json": {"schema": {"type": "object", "required": ["inputs"]}}})

INVOCATION = _body(
    {"application/json": {"schema": {"type": "object", "properties": {"dataframe_records": {"type": "array"}}}}}
)


def add_pages(app: FastAPI, service: Service) -> None:
    folder = files("graft.flows.serving.server") / "page"
    static = {name: (folder / name).read_bytes() for name in STATIC}
    index = (folder / "index.html").read_text(encoding="utf-8")
    index = index.replace("NEEDS-KEY", "yes" if service.settings.key else "no")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page(index)

    @app.get("/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in static:
            return Response(status_code=404)
        return Response(static[name], headers={"cache-control": "no-cache"}, media_type=STATIC[name])

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page(_addresses(app.openapi()))


def _page(text: str) -> Response:
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response(text, headers=headers, media_type="text/html")


def _addresses(document: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td><td>{escape(one.get('summary', ''))}</td>"
        f"<td>{escape(', '.join(one.get('requestBody', {}).get('content', {})))}</td></tr>"
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Graft: addresses</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/page.css">'
        '<main><h1>Addresses</h1><p>In full: <a href="/openapi.json">openapi.json</a>. '
        'With a key, each request has the header <code>Authorization: Bearer KEY</code>.</p><div class="wide"><table>'
        f"<tr><th>Method</th><th>Address</th><th>What</th><th>Body</th></tr>{''.join(rows)}</table></div></main></html>"
    )
