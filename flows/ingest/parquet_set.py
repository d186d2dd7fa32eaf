"""Sets of images in Hugging Face's Parquet files: a column of the images' bytes, one of their labels, the splits in the
names of the files. The images become members of shards."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.progress import progress
from graft.tasks.common.core.words import listed
from graft.tasks.common.data.task import Task
from graft.tasks.common.images.shard_writer import ShardWriter
from graft.tasks.common.images.shards import hash_of, is_stored
from graft.tasks.preprocess.image_table import complete_table
from graft.tasks.preprocess.layouts import hidden
from graft.tasks.preprocess.learnable import refuse_no_good
from graft.tasks.preprocess.tables import NAMES
from graft.tasks.preprocess.walk import open_regular

from .plan_table import refuse_splits
from .planned import LeftOut, Plan, another_image
from .raw_folder import refuse_too_large
from .sharding import next_number
from .webdataset import IMAGES, split_of

NO_BYTES = "a row without an image"
ELSEWHERE = "a row whose image is in another file"
NO_LABEL = "a row without a label"

STARTS = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif",
    b"RIFF": ".webp",
}  # fmt: skip
"""How the bytes of an image begin -> the suffix for a file."""

BATCH = 16 << 20
"""Bytes of images that are in memory at once, if they are of about the same size."""

LARGEST_GROUP = 8 << 30
"""Bytes of images in one group of rows."""


@dataclass(frozen=True)
class Columns:
    """Attributes:
    image: the column of the images, with `bytes` and `path` in each cell.
    label: that of the labels; None if there is none.
    classes: the names of the classes, for labels that are numbers.
    """

    image: str
    label: str | None
    classes: tuple[str, ...]


def tables_among(files: Mapping[str, Path]) -> dict[str, Path]:
    """The Parquet files of a folder, if all of them have images; by their names."""
    tables = {name: file for name, file in files.items() if name.lower().endswith(".parquet") and not hidden(name)}
    return tables if tables and all(map(_has_images, tables.values())) else {}


def _has_images(file: Path) -> bool:
    try:
        return bool(_image_columns(parquet.read_schema(file)))
    except (OSError, ValueError, pa.ArrowException):
        return False  # it is read as a table, which says what is wrong


def _image_columns(schema: Any) -> list[str]:
    """The columns of structs with `bytes` and `path`, as `datasets` stores images."""
    return [field.name for field in schema if pa.types.is_struct(field.type) and _is_image(field.type)]


def _is_image(struct: Any) -> bool:
    types = {struct.field(at).name: struct.field(at).type for at in range(struct.num_fields)}
    return {*types} == {"bytes", "path"} and (
        pa.types.is_binary(types["bytes"]) or pa.types.is_large_binary(types["bytes"])
    )


def plan_parquet(source: Path, tables: Mapping[str, Path], task: Task, joining: bool) -> Plan:
    """The plan for the rows of Parquet files; only their labels and the names of their images are read.

    Raises:
        DataError: a file is damaged, they differ in their columns, or no column, or several, may be the label.
    """
    columns = _columns(source, tables, task)
    parts = [_rows(source, name, file, columns) for name, file in tables.items()]
    rows = pd.concat(parts, ignore_index=True)
    if rows["split"].nunique() < 2:
        rows["split"] = None
    left, known = LeftOut(), rows["label"].notna()
    if task == "reconstruction" and not known.any():
        rows, known = rows.drop(columns="label"), ~known
    left.add(NO_LABEL, rows["path"][~known])
    rows = rows[known].reset_index(drop=True)
    files = dict(zip(rows["path"], rows.pop("file"), strict=True))
    rows = complete_table(rows, source, task)
    if not joining:
        refuse_splits(rows, source, task)
        if task == "anomaly":
            refuse_no_good(rows["label"], str(source))
    found = f"{len(tables):,} Parquet files with images: {listed(tables)}"
    label = f"labels: column `{columns.label}`" if columns.label else "no labels"
    content = ParquetSet(source, dict(tables), columns)
    return Plan("table", files, source, rows, left, (found, label), task=task, content=content)


def _columns(source: Path, tables: Mapping[str, Path], task: Task) -> Columns:
    found = {_columns_of(source, name, file, task) for name, file in tables.items()}
    if len(found) > 1:
        raise DataError(
            f"{source} has Parquet files with different columns or classes",
            got="; ".join(sorted(f"{each.image}, {each.label}: {listed(each.classes)}" for each in found)[:3]),
            allowed="one data set",
            todo="import the folder of one of them",
        )
    return found.pop()


def _columns_of(source: Path, name: str, file: Path, task: Task) -> Columns:
    with _opened(source, file) as table:
        schema, features = table.schema_arrow, _features(table.schema_arrow)
    images = _image_columns(schema)
    image = "image" if "image" in images else images[0]
    if len(images) > 1 and image != "image":
        raise _doubtful(file, "images", images, "image")
    classes = {column: names for column in schema.names if (names := _class_names(features.get(column))) is not None}
    named = [column for column in schema.names if column.lower().replace("_", "") in NAMES["label"]]
    likely = [column for column in ("label", "labels", "target") if column in schema.names] or [*classes] or named
    if len(likely) > 1 and likely[0] not in ("label", "labels", "target"):
        raise _doubtful(file, "labels", likely, "label")
    if not likely and task != "reconstruction":
        raise DataError(
            f"{file} has no column of labels",
            got=listed(schema.names),
            allowed="a column `label`, or one of the type ClassLabel",
            todo="rename or add the column",
        )
    label = likely[0] if likely else None
    return Columns(image, label, classes.get(label or "", ()))


def _doubtful(file: Path, what: str, found: Sequence[str], name: str) -> DataError:
    return DataError(
        f"{file} has several columns of {what}",
        got=", ".join(found),
        allowed=f"one, or one that is called `{name}`",
        todo=f"rename it: `dataset.rename_column({found[0]!r}, {name!r})` in `datasets`",
    )


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` states about the columns; nothing if it has not written the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel, or of a list of these; None for other columns."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    return tuple(map(str, feature.get("names") or ()))


@contextmanager
def _opened(source: Path, file: Path) -> Iterator[Any]:
    try:
        with open_regular(file, source) as opened:
            yield parquet.ParquetFile(opened, pre_buffer=False, buffer_size=1 << 20)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{file} cannot be read as a Parquet file", got=str(error).splitlines()[0], todo="download it again"
        ) from error


def _rows(source: Path, name: str, file: Path, columns: Columns) -> pd.DataFrame:
    """`path` (the place of the image), `label`, `split` and `file` of each row."""
    wanted = [f"{columns.image}.path", *([columns.label] if columns.label else [])]
    paths, labels = list[Any](), list[Any]()
    with _opened(source, file) as table:
        _refuse_large_groups(file, table)
        first = _first_suffix(table, columns.image)
        for batch in table.iter_batches(batch_size=10_000, columns=wanted):
            paths += batch.column(columns.image).field("path").to_pylist()
            labels += batch.column(columns.label).to_pylist() if columns.label else [None] * len(batch)
    stem = name.removeprefix("data/").rpartition(".")[0].replace("/", "-")
    places = [f"images/{stem}/{row:07}{_suffix(path) or first}" for row, path in enumerate(paths)]
    named = [_named(label, columns.classes) for label in labels]
    found = {"path": places, "label": named, "split": [split_of(name)] * len(places), "file": [file] * len(places)}
    return pd.DataFrame(found, dtype=object)


def _refuse_large_groups(file: Path, table: Any) -> None:
    meta = table.metadata
    largest = max((meta.row_group(at).total_byte_size for at in range(meta.num_row_groups)), default=0)
    if largest > LARGEST_GROUP:
        raise DataError(
            f"{file} has groups of rows that are too large to read",
            got=f"{largest / 1e9:,.0f} GB",
            allowed=f"{LARGEST_GROUP / 1e9:,.0f} GB",
            todo="write it with smaller groups of rows",
        )


def _first_suffix(table: Any, image: str) -> str:
    """The suffix for images that are stored without a name: as the first one's bytes begin."""
    batch = next(table.iter_batches(batch_size=1, columns=[f"{image}.bytes"]), None)
    data = batch.column(image).field("bytes")[0].as_py() if batch is not None and len(batch) else None
    return next((suffix for start, suffix in STARTS.items() if (data or b"").startswith(start)), "")


def _suffix(path: Any) -> str:
    ending = str(path or "").rpartition("/")[2].rpartition(".")[2].lower()
    return f".{ending}" if ending in IMAGES else ""


def _named(label: Any, classes: tuple[str, ...]) -> Any:
    """A label by the name of its class; None for a number without a class, as unlabelled rows have it."""
    if not classes or label is None:
        return label
    if isinstance(label, list):
        return [name for each in label if (name := _named(each, classes)) is not None]
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else None


@dataclass(frozen=True)
class ParquetSet:
    """The images of Parquet files, see `Content`."""

    source: Path
    tables: Mapping[str, Path]
    columns: Columns

    def shards(self, size_mb: int) -> int:
        """As many as the stored bytes fill, whose headers are not counted."""
        return max(1, -(-sum(map(self._size, self.tables.values())) // (size_mb * 10**6)))

    def _size(self, file: Path) -> int:
        with _opened(self.source, file) as table:
            return sum(table.metadata.row_group(at).total_byte_size for at in range(table.metadata.num_row_groups))

    def fill(self, folder: Path, plan: Plan, size_mb: int, *, link: bool) -> Plan:
        refuse_too_large(folder, sum(map(self._size, self.tables.values())))
        left: dict[str, str] = {}
        with (
            progress("import: writing shards", len(plan.files), "images") as bar,
            ShardWriter(folder, size_mb, next_number(folder)) as writer,
        ):
            for place, cell in self._cells(plan.files):
                content = cell["bytes"]
                if content is None:
                    left[place] = NO_BYTES if cell["path"] is None else ELSEWHERE
                elif not is_stored(folder / place):
                    writer.add(place, io.BytesIO(content), len(content))
                elif hash_of(folder / place) != _md5(content):
                    raise another_image(place)
                bar.add()
        return _without(plan, left)

    def _cells(self, places: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The place and the cell of each planned image, in the order of the rows."""
        planned = iter(places)
        wanted = next(planned, None)
        for file in self.tables.values():
            with _opened(self.source, file) as table:
                for row, cell in enumerate(_cells(table, self.columns.image)):
                    if wanted is not None and places[wanted] == file and int(Path(wanted).stem) == row:
                        yield wanted, cell
                        wanted = next(planned, None)


def _cells(table: Any, image: str) -> Iterator[dict[str, Any]]:
    meta = table.metadata
    size = sum(meta.row_group(at).total_byte_size for at in range(meta.num_row_groups))
    rows = max(1, min(1000, BATCH * meta.num_rows // max(1, size)))
    for batch in table.iter_batches(batch_size=rows, columns=[image]):
        for cell in batch.column(image):
            yield cell.as_py() or {"bytes": None, "path": None}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _without(plan: Plan, left: Mapping[str, str]) -> Plan:
    """The plan without the rows that have no image.

    Raises:
        DataError: no row has one.
    """
    for reason in sorted({*left.values()}):
        plan.left_out.add(reason, [place for place, why in left.items() if why == reason])
    files = {place: file for place, file in plan.files.items() if place not in left}
    if not files:
        raise DataError(
            f"{plan.source} has no images in its Parquet files",
            got=f"{len(left):,} rows: {listed(sorted({*left.values()}))}",
            todo="save the data set with its images: `embed_external_files=True`, as `push_to_hub` does",
        )
    rows = plan.rows[~plan.rows["path"].isin(set(left))].reset_index(drop=True)
    return replace(plan, files=files, rows=rows)
