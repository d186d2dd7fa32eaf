"""The answer of `graft trace` as one HTML page that needs no network."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from graft.tasks.common.core.files import whole_file
from graft.tasks.common.reporting.html import render

from .sections import Document, chain, moment, name_of, sections

TEMPLATE = Path(__file__).with_name("templates") / "trace.html"


def write_page(document: Document, file: Path) -> None:
    """The page, to a file."""
    with whole_file(file) as part:
        part.write_text(lineage_page(document, datetime.now(UTC).isoformat()), encoding="utf-8")


def lineage_page(document: Document, made: str) -> str:
    """The page's text.

    Args:
        made: when, for the last line.
    """
    return render(
        TEMPLATE,
        title=name_of(document),
        chain=chain(document),
        sections=sections(document),
        asked_for=document["asked_for"],
        made=moment(made),
    )
