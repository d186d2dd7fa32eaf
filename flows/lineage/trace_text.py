"""What `graft trace` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .sections import Cell, Document, Section, name_of, sections

GAP = "  "
"""Between two columns."""


def print_lineage(document: Document) -> None:
    print("\n".join(lines(document)))


def lines(document: Document) -> Iterator[str]:
    """The answer, line by line."""
    yield name_of(document)
    for section in sections(document):
        yield ""
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    if section.title:
        yield section.title
    if section.note:
        yield section.note
    head = [tuple(Cell(name, cell.kind) for name, cell in zip(section.head, row)) for row in section.rows[:1]]
    yield from _aligned([*(head if section.head else []), *section.rows])


def _aligned(rows: Sequence[tuple[Cell, ...]]) -> Iterator[str]:
    """Numbers to the right, everything else to the left."""
    widths = [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield GAP.join(
            cell.text.rjust(width) if cell.kind == "number" else cell.text.ljust(width) for cell, width in cells
        ).rstrip()
