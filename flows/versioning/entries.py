"""Entries below data/raw that DVC cannot hash: it waits for a FIFO for ever, and fails at others without a name."""

from __future__ import annotations

from pathlib import Path

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.layouts import hidden
from graft.tasks.preprocess.walk import walk

NAMED = 5
"""Entries that the error names."""


def refuse_what_dvc_cannot_hash(folder: Path) -> None:
    """Refuses names that are not UTF-8, FIFOs, sockets, devices, broken links and folders that cannot be read.

    Hidden entries count too, since DVC hashes them; only hidden folders without permission are left alone.

    Raises:
        DataError: there are such entries; the error names up to five.
    """
    if not folder.is_dir():
        return
    listing = walk(folder, outside=True)
    missed = {name: why for name, why in listing.left_out.items() if not (hidden(name) and _is_folder(why))}
    if missed:
        named = "; ".join(f"{name} ({why})" for name, why in list(missed.items())[:NAMED])
        raise DataError(
            f"{folder} contains entries that DVC cannot hash",
            got=f"{len(missed):,}: {named}{'; ...' if len(missed) > NAMED else ''}",
            allowed="regular files with names in UTF-8, folders that can be read, and links to these",
            todo="rename, remove or repair the named entries",
        )


def _is_folder(why: str) -> bool:
    return why.startswith("the folder cannot be read")
