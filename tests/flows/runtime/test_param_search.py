"""Parameters in words."""

from __future__ import annotations

import pytest

from graft.flows.runtime.param_search import allowed, parameters, search
from graft.tasks.common.core.errors import ParamsError


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "whole number, ≥ 1, ≤ 9"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number, > 0, < 1"),
        ({"anyOf": [{"const": "auto"}, {"type": "integer"}]}, "`auto` or whole number"),
        ({"enum": ["off", "on"]}, "`off`, `on`"),
        ({"type": "array", "items": {"type": "string"}}, "a list of: text"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "a mapping to: number"),
        ({"anyOf": [{"type": "string", "pattern": "^a$"}, {"type": "null"}]}, "text, matching `^a$` or `null`"),
    ],
)
def test_what_is_allowed_is_in_words(schema: dict[str, object], words: str) -> None:
    assert allowed(schema) == words


def test_every_parameter_has_a_meaning() -> None:
    assert [one.name for one in parameters() if not one.meaning] == []


def test_parameters_with_the_word_in_their_name_come_first() -> None:
    names = [one.name for one in search(["crop"])]

    assert names[0] == "features.crop"
    assert len(names) > 1


def test_all_words_must_be_there() -> None:
    assert {one.name for one in search(["crop", "border"])} < {one.name for one in search(["crop"])}


def test_a_word_that_no_parameter_has_is_refused() -> None:
    with pytest.raises(ParamsError, match="graft params"):
        search(["zzzz"])
