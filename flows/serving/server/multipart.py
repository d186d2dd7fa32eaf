"""The files of a multipart/form-data body, which is in memory and no larger than a request may be."""

from __future__ import annotations

import re
from email.message import Message

from .refusal import Refusal

HEADERS = 8192
"""Bytes that the headers of one part may have."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{1,70}", re.ASCII)


def parts(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """(name of the file or field, content) of each part.

    Args:
        most: parts that are allowed.

    Raises:
        Refusal: the body is not of this form, or has more parts.
    """
    mark = b"--" + _boundary(content_type)
    if not body.startswith(mark):
        raise malformed("does not begin with its boundary")
    found: list[tuple[str, bytes]] = []
    place = len(mark)
    while body[place : place + 2] != b"--":
        end = body.find(b"\r\n" + mark, place)
        if body[place : place + 2] != b"\r\n" or end < 0:
            raise malformed("has a part without an end")
        if len(found) == most:
            raise Refusal(413, f"the request has more than {most} images", "too_many")
        found.append(_part(body, place + 2, end))
        place = end + 2 + len(mark)
    return found


def _part(body: bytes, start: int, end: int) -> tuple[str, bytes]:
    stop = body.find(b"\r\n\r\n", start, min(end, start + HEADERS) + 4)
    if stop < 0 or stop + 4 > end + 2:
        raise malformed("has a part without headers, or with too many")
    headers = _headers(body[start:stop])
    if "content-transfer-encoding" in headers and headers["content-transfer-encoding"].lower() not in (
        "binary",
        "8bit",
    ):
        raise malformed("has an encoded part")
    given = Message()
    given["content-disposition"] = headers.get("content-disposition", "")
    name = given.get_filename() or str(given.get_param("name", "", "content-disposition"))
    return name, body[stop + 4 : end]


def _headers(lines: bytes) -> dict[str, str]:
    pairs = (line.decode("utf-8", "replace").partition(":") for line in lines.split(b"\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _boundary(content_type: str) -> bytes:
    given = Message()
    given["content-type"] = content_type
    boundary = given.get_boundary("")
    if not boundary or not _BOUNDARY.fullmatch(boundary):
        raise malformed("names no boundary")
    return boundary.encode("ascii")


def malformed(what: str) -> Refusal:
    return Refusal(400, f"the multipart body {what}", "malformed")
