"""The reference of `import graft`, from its docstrings: the part between the marks of docs/reference/python.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import graft

FIRST = ("open", "Project")
"""What the page begins with; the rest follows in alphabetical order."""

HEADINGS = {"Args:": "argument", "Attributes:": "attribute", "Raises:": "error"}
"""Sections of a docstring -> heading of the first column of their tables."""


def page_lines() -> Iterator[str]:
    for name in [*FIRST, *sorted({*graft.__all__} - {*FIRST})]:
        found = getattr(graft, name)
        yield f"## `graft.{name}`\n"
        if inspect.isfunction(found):
            yield f"```python\ngraft.{name}{signature(found)}\n```\n"
        yield from docstring(found)
        if inspect.isclass(found) and not issubclass(found, Exception):
            yield from members(name, found)


def members(owner: str, found: Any) -> Iterator[str]:
    """The public methods and properties of a class, in the order in which they are written."""
    for name, member in vars(found).items():
        if name.startswith("_") or isinstance(member, classmethod):
            continue
        if isinstance(member, property):
            yield f"### `{owner}.{name}`\n"
            yield f"`{annotation(inspect.signature(member.fget).return_annotation)}`\n"  # type: ignore[arg-type]
            yield from docstring(member)
        elif inspect.isfunction(member):
            yield f"### `{owner}.{name}`\n"
            yield f"```python\n{owner[0].lower()}{owner[1:]}.{name}{signature(member)}\n```\n"
            yield from docstring(member)


def signature(function: Any) -> str:
    """Without `self`, with the types as they are written."""
    whole = inspect.signature(function)
    shown = [each for name, each in whole.parameters.items() if name != "self"]
    words = ", ".join(
        f"{each}".replace("'", "") if each.default is each.empty else _with_default(each) for each in shown
    )
    return f"({words}) -> {annotation(whole.return_annotation)}"


def _with_default(each: inspect.Parameter) -> str:
    return f"{each.name}: {annotation(each.annotation)} = {each.default!r}"


def annotation(written: Any) -> str:
    return str(written).strip("'")


def docstring(found: Any) -> Iterator[str]:
    """Paragraphs as they are, and a table for each section."""
    for part in re.split(r"\n(?=(?:Args|Attributes|Raises):\n)", inspect.getdoc(found) or ""):
        first, _, rest = part.partition("\n")
        if first in HEADINGS:
            yield f"| {HEADINGS[first]} | meaning |\n| --- | --- |\n{rows(inspect.cleandoc(rest))}\n"
        else:
            yield f"{part.strip()}\n"


def rows(text: str) -> str:
    """The lines `name: meaning` of a section, whose further lines are indented."""
    entries = re.split(r"\n(?=\S)", text)
    cells = [entry.partition(": ")[::2] for entry in entries]
    return "\n".join(f"| `{name.strip()}` | {_in_a_cell(meaning)} |" for name, meaning in cells)


def _in_a_cell(text: str) -> str:
    words = " ".join(text.split()).replace("|", "\\|")
    return words if "." in words.partition(" ")[0] else words[:1].upper() + words[1:]  # not the name of a file
