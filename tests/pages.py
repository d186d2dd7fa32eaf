"""Pages as a reader sees them."""

from __future__ import annotations

from html.parser import HTMLParser


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def visible_text(page: str) -> str:
    """The text of a page as a browser would show it."""
    parser = _Text()
    parser.feed(page)
    return " ".join(" ".join(parser.parts).split())
