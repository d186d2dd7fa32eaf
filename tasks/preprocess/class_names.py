"""The names of classes: what is made equal, and what may be a mistake."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ..common.data.task import BETWEEN

NO_NAMES = ("", "?", "-", "n/a", "na", "nan", "none", "null", "unknown", "undefined")
"""What programs write into a cell without a value."""


def class_name(written: str) -> str:
    """The name without spaces around it, in Unicode's normal form C: macOS writes accents apart from their letters."""
    return unicodedata.normalize("NFC", written).strip()


def doubtful_names(names: Iterable[str]) -> list[str]:
    """What may be a mistake in the names of classes, one sentence each."""
    known = sorted(set(names))
    alike: dict[str, list[str]] = {}
    for name in known:
        alike.setdefault(_skeleton(name), []).append(name)
    doubts = [f"these classes may be one: {_quoted(same)}" for same in alike.values() if len(same) > 1]
    empty = [name for name in known if name.casefold() in NO_NAMES]
    if empty:
        doubts.append(f"these names of classes may stand for a missing label: {_quoted(empty)}")
    joined = [name for name in known if BETWEEN in name]
    if joined:
        doubts.append(
            f"each of these is read as one class: {_quoted(joined)}; if an image has several classes, set "
            "`head.task: multilabel`"
        )
    return doubts


def _skeleton(name: str) -> str:
    """Equal for names that differ only in case, in the width of letters, or in what separates their words."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return folded[:1] + re.sub(r"[\s_-]+", " ", folded[1:])


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
