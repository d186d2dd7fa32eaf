"""Results as HTML for a notebook: small, escaped, and complete without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import Reading, content_of
from graft.tasks.common.images.unreadable import UnreadableImage
from graft.tasks.common.reporting.html import inlined, render

TEMPLATE = Path(__file__).parent / "templates" / "result.html"

SIDE = 96
"""Pixels of the longer side of a thumbnail."""

Picture = tuple[str, str, int]
"""Caption, data URI, and width in pixels; 0 for the picture's own."""


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], pictures: Sequence[Picture] = ()) -> str:
    """A table with pictures below it. All text is escaped.

    Args:
        head: no headings if it is empty; the first column is then the heading of each row.
    """
    return render(TEMPLATE, title=title, head=list(head), rows=[list(row) for row in rows], pictures=pictures)


def pictures_in(folder: Path, names: Sequence[str]) -> list[Picture]:
    """Those PNG files of a folder that exist, as they are."""
    found = inlined(folder)
    return [(Path(name).stem.replace("_", " "), found[name], 0) for name in names if name in found]


def thumbnails(images: Iterable[tuple[str, Path | bytes]]) -> list[Picture]:
    """Small versions of images, by caption; an image that cannot be read is left out."""
    return [(caption, small, SIDE) for caption, image in images if (small := _thumbnail(image))]


def _thumbnail(image: Path | bytes) -> str:
    file = io.BytesIO()
    try:
        with content(image) as given, Reading().image(given) as (picture,):
            picture.thumbnail((SIDE, SIDE))
            picture.save(file, "PNG")
    except (OSError, UnreadableImage):
        return ""
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def content(image: Path | bytes) -> AbstractContextManager[bytes]:
    """The bytes of an image as `Images` gives it."""
    return nullcontext(image) if isinstance(image, bytes) else content_of(image, Limits())
