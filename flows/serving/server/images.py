"""The images in a request: raw bytes, files of a form, or base64 in JSON. No string is a path or a URL."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from .multipart import parts
from .refusal import Refusal

RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is one image, besides image/*; the last is what curl says of --data-binary."""

FORMS = "one image as the body, files as multipart/form-data, or JSON with base64"


def images_of(body: bytes, content_type: str, max_bytes: int, most: int) -> tuple[list[bytes | Refusal], bool]:
    """The images of `/predict`, and whether there is one, not a list.

    Raises:
        Refusal: the body has none of the forms.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = [content for _, content in parts(body, content_type, most)]
        if not found:
            raise Refusal(400, "the form has no file", "malformed")
        return [bounded(content, max_bytes) for content in found], len(found) == 1
    if kind == "application/json":
        return _of_document(document_of(body), max_bytes, most)
    if kind in RAW or kind.startswith("image/"):
        if not body:
            raise Refusal(400, f"the request has no body; send {FORMS}", "malformed")
        return [bounded(body, max_bytes)], True
    raise Refusal(415, f"content type {kind[:80]!r} is not taken; send {FORMS}", "content_type")


def _of_document(document: Any, max_bytes: int, most: int) -> tuple[list[bytes | Refusal], bool]:
    keys = set(document) if isinstance(document, dict) else set()
    if keys == {"image"}:
        return [decoded(document["image"], max_bytes)], True
    if keys == {"images"} and isinstance(document["images"], list):
        return several(document["images"], max_bytes, most), False
    raise Refusal(400, 'the JSON document must be {"image": BASE64} or {"images": [BASE64, ...]}', "malformed")


def several(values: list[Any], max_bytes: int, most: int) -> list[bytes | Refusal]:
    """Of base64 strings. An empty list is allowed.

    Raises:
        Refusal: there are too many.
    """
    if len(values) > most:
        raise Refusal(413, f"the request has more than {most} images", "too_many")
    return [decoded(value, max_bytes) for value in values]


def bounded(content: bytes, max_bytes: int) -> bytes | Refusal:
    if len(content) > max_bytes:
        return Refusal(413, f"has more than {max_bytes:,} bytes", "too_large")
    return content


def decoded(value: Any, max_bytes: int) -> bytes | Refusal:
    """Of one base64 string, also as a data URL."""
    if not isinstance(value, str):
        return Refusal(422, f"is not a base64 string, but {_kind(value)}", "not_base64")
    text = value.partition(",")[2] if value.startswith("data:") else value
    if len(text) // 4 * 3 > max_bytes + 3:
        return Refusal(413, f"has more than {max_bytes:,} bytes", "too_large")
    try:
        return bounded(base64.b64decode(text, validate=True), max_bytes)
    except ValueError:
        return Refusal(422, "is not base64; a string is never opened as a file or URL", "not_base64")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def document_of(body: bytes) -> Any:
    """Raises:
    Refusal: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not valid JSON", "malformed") from None


def flat(values: Any, depth: int = 4) -> Iterator[Any]:
    """The entries of nested lists."""
    if isinstance(values, list) and depth:
        for value in values:
            yield from flat(value, depth - 1)
    else:
        yield values
