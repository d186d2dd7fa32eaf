"""data/pins.csv: the splits that must be remembered, since no function of the hash alone gives them.

Columns `seed`, `key`, `split`; of two rows with one key the later counts. Keys are units (`group:NAME`, `pixels:HASH`),
and three kinds of facts:

- `class:NAME`, `listed` or `hash`: whether all units of a class are in the table, or new ones are split by their hash;
- `groups`, the same for all groups;
- `fractions`, the shares that the splits of this table follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import pandas as pd

PIN_COLUMNS = {"seed": "int64", "key": "object", "split": "object"}

CLASS, GROUP, GROUPS, FRACTIONS = "class:", "group:", "groups", "fractions"

State = Literal["listed", "hash"]


@dataclass(frozen=True)
class Pins:
    """The table of one seed.

    Attributes:
        split_of: unit -> split.
        state_of: `class:NAME` or `groups` -> state.
        fractions: as they were written; empty in a table from before they were.
    """

    split_of: dict[str, str]
    state_of: dict[str, State]
    fractions: str


def read_pins(path: Path) -> pd.DataFrame:
    """The pins of a project, none without the file."""
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in PIN_COLUMNS.items()})
    read = pd.read_csv(path, dtype=PIN_COLUMNS, usecols=list(PIN_COLUMNS), keep_default_na=False)
    return read[list(PIN_COLUMNS)]


def pins_of(table: pd.DataFrame, seed: int) -> Pins:
    """The table of this seed."""
    pinned = _rows(table, seed)
    states = {key: cast(State, pinned.pop(key)) for key in list(pinned) if key.startswith(CLASS) or key == GROUPS}
    fractions = pinned.pop(FRACTIONS, "")
    return Pins(pinned, states, fractions)


def with_rows(table: pd.DataFrame, seed: int, rows: Mapping[str, str]) -> pd.DataFrame:
    """The table with these rows appended, sorted; those that it already says are left out."""
    pinned = _rows(table, seed)
    new = [(seed, key, split) for key, split in sorted(rows.items()) if pinned.get(key) != split]
    return pd.concat([table, pd.DataFrame(new, columns=list(PIN_COLUMNS))], ignore_index=True) if new else table


def lists_classes(table: pd.DataFrame) -> bool:
    """Whether the table was written since whole classes are listed."""
    return bool(table["key"].str.startswith(CLASS).any())


def _rows(table: pd.DataFrame, seed: int) -> dict[str, str]:
    return dict(table.loc[table["seed"] == seed, ["key", "split"]].itertuples(index=False))
