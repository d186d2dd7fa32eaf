"""What the files of shards are called, and what is in them. Known without numpy, for commands that only look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataError

TAR, INDEX = ".tar", ".index.parquet"
"""How the two files of a shard end."""

AGAIN = "restore both files (`dvc checkout data/raw`, or `dvc pull`), or remove both and import the images again"


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a shard: in `file` the `size` bytes from `offset` on, which have this `md5`."""

    file: Path
    offset: int
    size: int
    md5: str


def refuse_twice(names: Sequence[str], folder: Path) -> None:
    """Args:
    names: those that two images have.

    Raises:
        DataError: there are some.
    """
    if names:
        raise DataError(
            f"{folder} has images twice under the same name",
            got=f"{len(names):,}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            allowed="each name once: as a file or in one shard",
            todo="remove the files that are also in a shard; shards that share names cannot be used together",
        )


def index_of(tar: str) -> str:
    return tar.removesuffix(TAR) + INDEX
