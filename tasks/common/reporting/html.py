"""Pages that need no network: one style, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } h1 strong { color: #0a5; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of `parts`, which are HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{STYLE}</style></head><body>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table of plain text, whose first `words` columns are words and the others figures."""

    def line(cells: Sequence[str], tag: str) -> str:
        parts = [f"<{tag}{'' if n < words else ' class=n'}>{escape(cell)}</{tag}>" for n, cell in enumerate(cells)]
        return f"<tr>{''.join(parts)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
