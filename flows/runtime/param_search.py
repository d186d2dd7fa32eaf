"""`graft params WORD`: parameters by their names and meanings, with what each of them takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graft.tasks.common.core.errors import ParamsError, nearest

from .params import SECTIONS, Params

Schema = dict[str, Any]

TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "null": "`null`",
}
"""The types of JSON Schema in words."""

SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


@dataclass(frozen=True)
class Parameter:
    """A key of params.yaml.

    Attributes:
        name: with its section.
        default: as params.yaml would have it.
        allowed: which values it takes, in words.
        meaning: its description, in one line.
    """

    name: str
    default: str
    allowed: str
    meaning: str

    def has(self, word: str) -> bool:
        """Whether the word is in the name, in the values or in the meaning, in any case."""
        return word.casefold() in f"{self.name} {self.allowed} {self.meaning}".casefold()


def parameters() -> Iterator[Parameter]:
    """Every parameter, in the order of the file."""
    definitions = Params.model_json_schema(by_alias=True)["$defs"]
    for section, model in SECTIONS.items():
        for key, field in definitions[model.__name__]["properties"].items():
            meaning = " ".join((field.get("description") or "").split())
            yield Parameter(f"{section}.{key}", value_text(field["default"]), allowed(field), meaning)


def search(words: Sequence[str]) -> list[Parameter]:
    """The parameters that have to do with all of the words: by name first.

    Raises:
        ParamsError: there are none.
    """
    every = list(parameters())
    found = [one for one in every if all(one.has(word) for word in words)]
    if not found:
        names = {name for one in every for name in (one.name, one.name.partition(".")[2])}
        raise ParamsError(
            "no parameter has to do with this",
            got=" ".join(words),
            todo=nearest(words[0], names) or "try one word, or list them all: graft params",
        )
    return sorted(found, key=lambda one: not all(word.casefold() in one.name for word in words))


def value_text(value: Any) -> str:
    """A value as params.yaml has it."""
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def allowed(field: Schema) -> str:
    """What a field takes, in words, from its JSON Schema."""
    if "anyOf" in field:
        return " or ".join(allowed(part) for part in field["anyOf"])
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field["type"]
    if kind == "array" and "prefixItems" in field:
        return f"a list of {len(field['prefixItems'])}: {allowed(field['prefixItems'][0])}"
    if kind == "array":
        return f"a list of: {allowed(field['items'])}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"a mapping to: {allowed(values)}" if isinstance(values, dict) else "a mapping"
    text = ", ".join([TYPES[kind], *_bounds(field)])
    return f"{text}, matching `{field['pattern']}`" if "pattern" in field else text


def _bounds(field: Schema) -> Iterable[str]:
    return (f"{sign} {field[key]:g}" for key, sign in SIGNS.items() if key in field)
