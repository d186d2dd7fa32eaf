"""Where answers go: CSV, Parquet, JSON lines, or the terminal. A file appears when it is whole."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import whole_file

from .columns import Columns, document, lines
from .predict import Answer

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl")

GROUP = 4096
"""Rows of a Parquet file that are written together."""

WIDEST = 60
"""Characters of a path on the terminal; labels after longer ones are not aligned."""

Write = Callable[[Answer], Any]


@contextmanager
def writing(output: Path | None, columns: Columns, top: int | None, names: list[str]) -> Iterator[Write]:
    """A function that writes an answer.

    Args:
        output: by its suffix, one of `FORMATS`; None for the terminal.
        names: of all files, for the width of the terminal's first column.

    Raises:
        GraftError: the suffix is another one, or the file cannot be written.
    """
    if output is None:
        width = min(WIDEST, max(map(len, names)))
        yield lambda answer: _print(answer, top or 1, width)
        return
    opened = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}[check_output(output)]
    try:
        with whole_file(output) as part, opened(part, output, columns, top) as write:
            yield write
    except OSError as error:
        raise GraftError(
            f"{output} cannot be written", got=error.strerror or str(error), todo="name another file with --output"
        ) from error


def check_output(output: Path, *, as_json: bool = False) -> str:
    """Its suffix, in small letters.

    Raises:
        GraftError: it is none of `FORMATS`, there is no such folder, or JSON is asked for as well.
    """
    if as_json:
        raise GraftError(
            "--json prints, and --output writes a file",
            got="both",
            allowed="one of them",
            todo="for JSON lines in a file: --output FILE.jsonl",
        )
    suffix = output.suffix.lower()
    if suffix not in FORMATS or output.is_dir() or not output.parent.is_dir():
        raise GraftError(
            f"predictions cannot be written to {output}",
            got=f"the suffix {suffix!r}" if output.parent.is_dir() else f"no folder {output.parent}",
            allowed=f"a file that ends in {', '.join(FORMATS)}, in a folder that exists",
            todo="name another file with --output",
        )
    return suffix


def _print(answer: Answer, top: int, width: int) -> None:
    if not answer.error:
        print("\n".join(lines(answer, top, width)), flush=True)


@contextmanager
def _csv(part: Path, output: Path, columns: Columns, _top: int | None) -> Iterator[Write]:
    tabs = output.suffix.lower() == ".tsv"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns.types), delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writeheader()
        yield lambda answer: writer.writerow(columns.row(answer))


@contextmanager
def _jsonl(part: Path, _output: Path, _columns: Columns, top: int | None) -> Iterator[Write]:
    with part.open("w", encoding="utf-8") as file:
        yield lambda answer: file.write(as_json(answer, top) + "\n")


def as_json(answer: Answer, top: int | None) -> str:
    return json.dumps(document(answer, top), ensure_ascii=False)


@contextmanager
def _parquet(part: Path, _output: Path, columns: Columns, _top: int | None) -> Iterator[Write]:
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(part, columns.schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, columns.schema))
            rows.clear()

        def write(answer: Answer) -> None:
            rows.append(columns.row(answer))
            if len(rows) == GROUP:
                flush()

        yield write
        flush()


@contextmanager
def json_lines(top: int | None) -> Iterator[Write]:
    """To standard output."""
    yield lambda answer: print(as_json(answer, top), flush=True)


def report_errors(write: Write) -> Write:
    """Also names each file that could not be read on standard error."""

    def written(answer: Answer) -> None:
        write(answer)
        if answer.error:
            print(f"error: {answer.source.name}: {answer.error}", file=sys.stderr, flush=True)

    return written
