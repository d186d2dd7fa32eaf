"""The feature set: what the stages after `features` read instead of images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import DataError
from ..core.files import read_json
from ..images.reading import Reading
from .eyes import Eye, Fingerprint, eyes_of
from .manifest import GOOD, classes, codes, names_in, task_of, with_later
from .parts import Layout, PartOf, Parts, Stored, load_rows, part_file, views_part
from .task import Task

INDEX = ["image_id", "path", "label", "task", "split", "group", "weight", "pixels", "mask", "target"]
"""The columns of the manifest that travel with the features."""

PART_COLUMN = "part"
"""One more column of index.parquet, if the features are in parts: the number of each row's part."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Precision = Literal["f32", "bf16"]


@dataclass(frozen=True)
class Learnable:
    """Rows of features that are read from the disk block by block: training data need not fit into memory.

    `learnable[start:stop]` are rows as float32, `np.asarray(learnable)` all of them.

    Attributes:
        parts: arrays (.., D), and the rows of each, concatenated.
    """

    parts: tuple[tuple[Stored, Rows], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.parts[0][0].shape[1]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def __getitem__(self, place: slice) -> Floats:
        start, stop, _ = place.indices(len(self))
        blocks: list[Floats] = []
        before = 0
        for stored_ND, rows in self.parts:
            inside = rows[max(start - before, 0) : max(stop - before, 0)]
            if len(inside) or not blocks:
                blocks.append(stored_ND[inside].astype(np.float32, copy=False))
            before += len(rows)
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


@dataclass(frozen=True)
class FeatureSet:
    """Features and their images. N images, T of them for training, V = views * T, D features.

    Attributes:
        stored_ND: memory-mapped, float32 or float16, in the manifest's order; many rows are in several files.
        views_VD: augmented views: the first of every training image in order, then the second, and so on.
        index: the columns `INDEX`, one row per image.
        fingerprint: what computed the features; of several backbones or sizes, see `eyes.join`.
        reading: how the images are read.
    """

    stored_ND: Stored
    views_VD: Stored
    index: pd.DataFrame
    fingerprint: dict[str, Any]
    reading: Reading = field(default_factory=Reading)

    @property
    def eyes(self) -> tuple[Eye, ...]:
        """What computed the features, column by column."""
        return eyes_of(self.fingerprint, self.stored_ND.shape[1])

    def only(self, eye: Eye) -> FeatureSet:
        """The feature set with the columns of one eye; (N, D) and (V, D) are views."""
        return replace(
            self,
            stored_ND=self.stored_ND[:, eye.columns],
            views_VD=self.views_VD[:, eye.columns],
            fingerprint=eye.fingerprint,
        )

    @property
    def precision(self) -> Precision:
        """The precision of OpenVINO that matches these features: fp32 if torch made them; the lowest of several."""
        found: list[Precision] = [precision_of(eye.fingerprint) for eye in self.eyes]
        return "bf16" if "bf16" in found else "f32"

    @property
    def maps_fingerprint(self) -> Fingerprint | None:
        """What computed the maps, see `maps.maps.open_maps`; None where the task needs none."""
        return self.fingerprint.get("maps")

    @property
    def channels(self) -> int:
        """As how many channels the images were read."""
        return int(self.eyes[0].fingerprint["form"]["channels"])

    @property
    def task(self) -> Task:
        return task_of(self.index)

    @cached_property
    def classes(self) -> list[str]:
        """The K classes; none for regression; for anomaly `GOOD` and the kinds of defect."""
        return classes(self.index)

    def rows(self, *splits: str) -> Rows:
        """The rows of the named splits, in order."""
        return np.flatnonzero(self.index["split"].isin(splits))

    def features(self, rows: Rows) -> Floats:
        """Float32 (len(rows), D)."""
        return self.stored_ND[rows].astype(np.float32, copy=False)

    def matrix(self, rows: Rows) -> Learnable:
        """The same, read block by block."""
        return Learnable(((self.stored_ND, rows),))

    def labels(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Class codes of the given rows, shape (len(rows),)."""
        return codes(self.index["label"].iloc[rows], self.classes)

    def targets(self, rows: Rows) -> npt.NDArray[Any]:
        """The labels of the given rows: int64 class codes (n,), for several classes per image float64 zeros and ones
        (n, K), for regression float64 (n,), for anomaly float64 (n,): 1 for a defect; for
        reconstruction, whose targets are images, zeros (n,)."""
        if self.task == "classification":
            return self.labels(rows)
        labels = self.index["label"].iloc[rows]
        if self.task == "reconstruction":
            return np.zeros(len(rows))
        if self.task == "anomaly":
            return labels.ne(GOOD).to_numpy(np.float64)
        if self.task == "regression":
            return labels.to_numpy(np.float64)
        has = {name: k for k, name in enumerate(self.classes)}
        y_NK = np.zeros((len(rows), len(has)))
        for i, label in enumerate(labels):
            y_NK[i, [has[name] for name in names_in(label)]] = 1.0
        return y_NK

    def weights(self, rows: Rows) -> npt.NDArray[np.float64]:
        return self.index["weight"].to_numpy(np.float64)[rows]

    def with_views(self, rows: Rows) -> tuple[Learnable, Rows]:
        """(features, rows): those of `rows`, and after them the augmented views of the training images among them."""
        train = self.rows("train")
        own = np.flatnonzero(np.isin(train, rows))
        views = len(self.views_VD) // max(len(train), 1)
        if not views or not len(own):
            return self.matrix(rows), rows
        places = (np.arange(views)[:, None] * len(train) + own).ravel()
        return Learnable(((self.stored_ND, rows), (self.views_VD, places))), np.concatenate(
            [rows, np.tile(train[own], views)]
        )


def precision_of(fingerprint: Fingerprint) -> Precision:
    """The precision of OpenVINO that matches the features of one backbone."""
    return fingerprint["precision"] if fingerprint["engine"] == "openvino" else "f32"


def read_feature_set(folder: Path) -> FeatureSet:
    """data/features.

    Raises:
        DataError: the features stage has not run.
    """
    if not (folder / "fingerprint.json").is_file():
        raise DataError(f"{folder} holds no features", todo="run `graft repro`, which makes them in the stage features")
    fingerprint, index = read_json(folder / "fingerprint.json"), pd.read_parquet(folder / "index.parquet")
    features, views = _stored(folder, index)
    return FeatureSet(
        stored_ND=features,
        views_VD=views,
        index=with_later(index.drop(columns=PART_COLUMN, errors="ignore")),
        fingerprint=fingerprint,
        reading=Reading.load(folder),
    )


def _stored(folder: Path, index: pd.DataFrame) -> tuple[Stored, Stored]:
    """Features and views."""
    files = folder / "features.npy", folder / "views.npy"
    if PART_COLUMN not in index:
        return load_rows(files[0]), load_rows(files[1])
    part_N, train = index[PART_COLUMN].to_numpy(np.int32), np.flatnonzero(index["split"] == "train")
    features = Parts.load(files[0], part_N)
    rows = sum(len(load_rows(part_file(files[1], number))) for number in range(len(features.files)))
    return features, Parts.load(files[1], views_part(part_N, train, rows // max(len(train), 1)))


class RowFile:
    """A .npy file of a known shape, or its parts, written in any order of rows, with statistics; nothing is held in
    memory.

    Args:
        path: of the file; parts have a number in their name, see `parts.part_file`.
        part_N: of each row, see `parts.parts_of`; None: one file.
        parts: their number.

    Attributes:
        mean, std, constant_columns: of the written rows (std over all values; columns that never vary).
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        part_N: PartOf | None = None,
        parts: int = 1,
    ) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._layout = Layout((shape[0],)) if part_N is None else Layout.of(part_N, parts)
        names = [path] if part_N is None else [part_file(path, number) for number in range(parts)]
        self._files = [self._create(name, rows) for name, rows in zip(names, self._layout.sizes, strict=True)]
        self._sum = self._squares = 0.0
        self._values = 0
        self._least, self._most = np.full(shape[1], np.inf), np.full(shape[1], -np.inf)

    def write(self, rows: Rows, block: npt.NDArray[Any], columns: slice = slice(None)) -> None:
        """Puts block[i] into row rows[i], or into these columns of it; each value must be written once."""
        if not len(rows):
            return
        order = np.argsort(rows)
        rows, block = rows[order], np.ascontiguousarray(block[order], self._dtype)
        start, stop, _ = columns.indices(self._shape[1])
        self._count(block, slice(start, stop))
        for part, mine, within in self._layout.where(rows):
            self._write(self._files[part], within, block if len(mine) == len(block) else block[mine], start)

    def _create(self, path: Path, rows: int) -> tuple[Path, int]:
        """A file of zeros, and where they begin."""
        shape = rows, self._shape[1]
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            file.truncate(begin + shape[0] * shape[1] * self._dtype.itemsize)
        return path, begin

    def _write(self, file: tuple[Path, int], rows: Rows, block: npt.NDArray[Any], start: int) -> None:
        """Rows in order, from column `start` on. A file is opened for each write: there may be more of them than a
        process may hold open."""
        path, begin = file
        whole = block.shape[1] == self._shape[1]
        apart = np.diff(rows) != 1 if whole else np.ones(len(rows) - 1, np.bool_)
        with path.open("r+b") as opened:
            for run in np.split(np.arange(len(rows)), np.flatnonzero(apart) + 1):
                place = begin + (int(rows[run[0]]) * self._shape[1] + start) * self._dtype.itemsize
                _write_whole(opened.fileno(), block[run[0] : run[-1] + 1].tobytes(), place)

    def _count(self, block: npt.NDArray[Any], columns: slice) -> None:
        values = block.astype(np.float64)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())
        self._values += values.size
        self._least[columns] = np.minimum(self._least[columns], values.min(axis=0))
        self._most[columns] = np.maximum(self._most[columns], values.max(axis=0))

    @property
    def mean(self) -> float:
        return self._sum / max(self._values, 1)

    @property
    def std(self) -> float:
        return float(np.sqrt(max(self._squares / max(self._values, 1) - self.mean**2, 0.0)))

    @property
    def constant_columns(self) -> int:
        return int(np.count_nonzero(self._least == self._most))


def _write_whole(file: int, content: bytes, place: int) -> None:
    """The system may write less than it is given; a full disk is an error at the next call."""
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written
