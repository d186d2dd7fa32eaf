"""The results of checking files, by their hash: a file is decoded and checked once, not in every run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.core.cores import cores
from ..common.core.files import digest, write_shared
from ..common.core.progress import progress, say
from ..common.images.unreadable import Refused
from .check import Look

NoLook = OSError | Refused
"""Why there is no look of a file; not remembered, since it does not depend on the bytes alone."""

CHECK = 4
"""Increased whenever a change in `check` or in decoding changes the look of a file."""

KEPT_TOGETHER = 5000
"""Looks per Parquet file: the most that a crash can lose."""


class Memory:
    """Looks by md5, in append-only Parquet files, each named by the hash of its content.

    Args:
        folder: contains one folder per version of the check and of Pillow, and per number of channels.
        channels: number of channels that the files are decoded to.
    """

    def __init__(self, folder: Path, channels: int = 3) -> None:
        self._folder = folder / f"{CHECK}-channels-{channels}-pillow-{version('pillow')}"
        self._known: dict[str, Look] = {}
        for file in sorted(self._folder.glob("*.parquet")):
            self._read(file)

    def looks(self, files: Mapping[str, Path], look: Callable[[str, Path], Look]) -> dict[str, Look | NoLook]:
        """md5 -> the look of the file; `look` is called for new files only, in one thread per core.

        For a file that cannot be read, or is refused, the value is the error, which is not remembered.
        """
        found: dict[str, Look | NoLook] = {md5: self._known[md5] for md5 in files if md5 in self._known}
        new = [md5 for md5 in files if md5 not in self._known]
        with ThreadPoolExecutor(cores()) as pool, progress("preprocess: checking", len(new), "files") as bar:
            for start in range(0, len(new), KEPT_TOGETHER):
                part, fresh = new[start : start + KEPT_TOGETHER], dict[str, Look]()
                try:
                    for md5, seen in zip(part, pool.map(_or_error(look), part, (files[md5] for md5 in part))):
                        found[md5] = seen
                        if isinstance(seen, Look):
                            fresh[md5] = seen
                        bar.add()
                finally:
                    self._write(fresh)
        return found

    def _write(self, fresh: dict[str, Look]) -> None:
        if not fresh:
            return
        rows = [{"md5": md5, **asdict(seen)} for md5, seen in fresh.items()]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
        content = buffer.getvalue()
        write_shared(self._folder / f"{digest(content)}.parquet", content)
        self._known |= fresh

    def _read(self, file: Path) -> None:
        content = file.read_bytes()
        if digest(content) == file.stem:
            rows = pq.read_table(io.BytesIO(content)).to_pylist()
            self._known |= {row.pop("md5"): Look(**row) for row in rows}
        else:
            say(f"preprocess: {file.name} in the cache of checks is damaged; its images are checked again")
            file.unlink(missing_ok=True)


def _or_error(look: Callable[[str, Path], Look]) -> Callable[[str, Path], Look | NoLook]:
    def try_it(md5: str, path: Path) -> Look | NoLook:
        try:
            return look(md5, path)
        except (OSError, Refused) as error:
            error.__cause__ = error.__context__ = None  # tracebacks would keep files and pixels until the end
            return error.with_traceback(None)

    return try_it
