"""MLflow's form of a request, `/invocations`: a table with a column `image` of base64 strings."""

from __future__ import annotations

from typing import Any

from .refusal import Refusal

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def values_of(document: Any) -> list[Any]:
    """The entries of the column `image`.

    Raises:
        Refusal: the document has none of MLflow's forms, or no such column.
    """
    forms = [form for form in FORMS if isinstance(document, dict) and form in document]
    if len(forms) != 1:
        raise _malformed(f"has exactly one of {', '.join(FORMS)}")
    given = document[forms[0]]
    if forms[0] == "dataframe_split":
        return _of_split(given)
    if isinstance(given, dict):  # the columns of a table
        given = _column(given)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise _malformed("holds a list")
    return [_column(row) if isinstance(row, dict) else _cell(row) for row in given]


def _of_split(given: Any) -> list[Any]:
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        raise _malformed('has {"columns": ["image"], "data": [[BASE64], ...]}')
    columns = given.get("columns", ["image"])
    if not isinstance(columns, list) or "image" not in columns:
        raise _malformed("has the column `image`")
    place = columns.index("image")
    rows = [row if isinstance(row, list) else [row] for row in given["data"]]
    if any(len(row) != len(columns) for row in rows):
        raise _malformed("has as many values in each row as columns")
    return [row[place] for row in rows]


def _column(row: dict[str, Any]) -> Any:
    if "image" not in row:
        raise _malformed("has the column `image`")
    return row["image"]


def _cell(row: Any) -> Any:
    """A row of one value, or the value."""
    return row[0] if isinstance(row, list) and len(row) == 1 else row


def _malformed(what: str) -> Refusal:
    return Refusal(400, f"/invocations takes a JSON document that {what}", "malformed")
