"""What `graft params` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..runtime.locations import place_of
from ..runtime.param_search import Parameter, search, value_text
from ..runtime.params import load_params
from .output import print_json


def print_every(root: Path, as_json: bool) -> None:
    """Every parameter with its value and its meaning."""
    values = _values(root)
    if as_json:
        print_json(values)
        return
    table = Table(Column("parameter", no_wrap=True), Column("value", overflow="fold"), "meaning")
    for name, section in load_params(root / "params.yaml").sections().items():
        for key, field in type(section).model_fields.items():
            meaning = " ".join((field.description or "").split())
            table.add_row(f"{name}.{key}", escape(str(getattr(section, key))), escape(meaning))
    Console().print(table)


def print_matching(words: list[str], project: Path, as_json: bool) -> None:
    """The parameters that have to do with the words; outside a project without their values."""
    found = search(words)
    root = place_of(project).root
    values = _values(root) if root else {}
    if as_json:
        print_json([_document(one, values) for one in found])
        return
    console = Console(soft_wrap=False)
    for number, one in enumerate(found):
        console.print(_as_table(one, values), *([""] if number < len(found) - 1 else []), sep="\n")


def _values(root: Path) -> dict[str, dict[str, Any]]:
    sections = load_params(root / "params.yaml").sections()
    return {name: section.model_dump() for name, section in sections.items()}


def _document(one: Parameter, values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    section, _, key = one.name.partition(".")
    return {**asdict(one), **({"value": values[section][key]} if values else {})}


def _as_table(one: Parameter, values: dict[str, dict[str, Any]]) -> Table:
    table = Table(Column(one.name, no_wrap=True), Column("", overflow="fold"), box=None, padding=(0, 2, 0, 0))
    if values:
        section, _, key = one.name.partition(".")
        table.add_row("  value", escape(value_text(values[section][key])))
    for title, text in (("default", one.default), ("allowed", one.allowed), ("meaning", one.meaning)):
        table.add_row(f"  {title}", escape(text))
    return table
