"""The feature cache: what a backbone once computed of an image is never computed again.

One folder a fingerprint; in it append-only segments, each a safetensors file named by the hash of its content and
renamed into place. So a killed process leaves whole segments or none, and processes that work at once cannot harm each
other: at worst the same features are written twice. It lies outside DVC's outs, which DVC deletes before a run.

Only ids are held in memory, 24 bytes an image; features are read segment by segment and verified before use.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import GraftError
from .files import digest, write_shared
from .progress import say

SEGMENT = 1024
"""Images a segment: what a crash can lose at most."""

SEGMENT_SECONDS = 5.0
"""A slow backbone's segment is written after this time, full or not."""

ROUNDS = 3
"""A segment that is damaged is computed again, and read again; one that is damaged every time is a broken disk."""

Dtype = Literal["float32", "float16"]

Features = npt.NDArray[np.float32]
"""float32, shape (N, D)."""

Ids = npt.NDArray[np.void]
"""Keys of 16 bytes, shape (N,): an image's md5, or the hash of an image and a view."""

_ID = np.dtype("V16")


def ids_of(hexadecimal: list[str]) -> Ids:
    """Keys from texts of 32 hexadecimal digits."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), _ID)


VIEWS = 3
"""Raised whenever a change in `augment` makes other views of the same number."""


def view_key(image_id: str, number: int, recipe: str) -> str:
    """Of an image's view: 32 hexadecimal digits, for `ids_of`."""
    return hashlib.blake2b(f"{image_id} {number} {recipe}".encode(), digest_size=16).hexdigest()


class FeatureCache:
    """Features by image under one fingerprint.

    Args:
        folder: of this fingerprint.
        dimension: D, the length of a feature vector.
        dtype: in which features are kept. Half precision takes half the space.

    Used as a context: what was added is on disk when the block ends, however it ends.
    """

    def __init__(self, folder: Path, dimension: int, dtype: Dtype = "float32") -> None:
        self.folder, self.dimension, self.dtype = folder, dimension, np.dtype(dtype)
        self._new: list[tuple[Ids, npt.NDArray[Any]]] = []
        self._written = time.monotonic()
        self.refresh()

    def __len__(self) -> int:
        """Distinct images on disk."""
        return len(self._ids)

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids` (N,) are on disk."""
        return self._find(ids)[0]

    def read(self, ids: Ids) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Features of those of `ids` (N,) that are there, segment by segment.

        A damaged segment is named, dropped and left out, so that its images are computed again.

        Yields:
            (places in `ids`, features of shape (len(places), D) in the cache's dtype).
        """
        found, entry = self._find(ids)
        places = np.flatnonzero(found)
        segment = self._segment_of[entry[places]]
        order = np.argsort(segment, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(segment[order])) + 1):
            if len(part):
                features = self._read_segment(self._segments[segment[part[0]]])
                if features is not None:
                    yield places[part], features[self._row_of[entry[places[part]]]]

    def read_all(
        self, ids: Ids, compute: Callable[[npt.NDArray[np.int64]], None]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Features of all of `ids` (N,); what is missing or damaged is computed.

        Args:
            compute: adds the features of these places in `ids`, each id once, in the order of `ids`.

        Yields:
            as `read`.

        Raises:
            GraftError: what was written is damaged every time.
        """
        left = np.arange(len(ids))
        for _ in range(ROUNDS):
            absent = left[~self.has(ids[left])]
            if len(absent):
                compute(absent[np.sort(np.unique(ids[absent], return_index=True)[1])])
            read = np.zeros(len(left), np.bool_)
            for places, block in self.read(ids[left]):
                read[places] = True
                yield left[places], block
            left = left[~read]
            if not len(left):
                return
            self.refresh()  # what was damaged is not there any more
        raise GraftError(
            f"{self.folder} does not give back what was written to it",
            got=f"{len(left)} of {len(ids)} rows were damaged {ROUNDS} times",
            todo="check the disk, then try again",
        )

    def add(self, ids: Ids, features: Features) -> None:
        """Keeps features (N, D); they are on disk when the segment is full, and at the latest when the block ends.

        Raises:
            GraftError: some are no numbers, or too large for half precision.
        """
        with np.errstate(over="ignore"):
            kept = features.astype(self.dtype, copy=False)
        if not np.isfinite(kept).all():
            raise GraftError(
                "the backbone gave features that cannot be kept",
                got=f"{np.count_nonzero(~np.isfinite(kept))} values that are not finite as {self.dtype}",
                todo="use `features.dtype: float32` and `features.precision: f32`, or another backbone",
            )
        self._new.append((ids, kept))
        if sum(len(part) for part, _ in self._new) >= SEGMENT or time.monotonic() - self._written >= SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last flush as one segment."""
        if self._new:
            content = save(
                {
                    "ids": np.concatenate([part for part, _ in self._new]).view(np.uint8).reshape(-1, 16),
                    "features": np.concatenate([part for _, part in self._new]),
                }
            )
            write_shared(self.folder / f"{digest(content)}.safetensors", content)
        self._new = []
        self._written = time.monotonic()

    def refresh(self) -> None:
        """Looks which images the segments hold, those of other processes too; of one in several, any will do."""
        self._segments: list[Path] = []
        parts: list[Ids] = []
        for segment in sorted(self.folder.glob("*.safetensors")):
            ids = _read_ids(segment)
            if ids is None:
                _drop(segment, "it is cut short, or no segment")
            else:
                self._segments.append(segment)
                parts.append(ids)
        every = np.concatenate(parts) if parts else np.empty(0, _ID)
        self._ids, first = np.unique(every, return_index=True)
        sizes = [len(part) for part in parts]
        self._segment_of = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)[first]
        self._row_of = np.concatenate([np.arange(size, dtype=np.int32) for size in [0, *sizes]])[first]

    def _find(self, ids: Ids) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """(found, entry in the index) for each id."""
        if not len(self._ids):
            return np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.int64)
        entry = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._ids[entry] == ids, entry

    def _read_segment(self, segment: Path) -> npt.NDArray[Any] | None:
        """The features of a segment, verified; None if it is damaged or another process has removed it."""
        reason, features = _verified(segment)
        if features is not None and features.shape[1] != self.dimension:
            reason, features = f"it holds {features.shape[1]} features an image, not {self.dimension}", None
        if reason:
            _drop(segment, reason)
        return features

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def count_images(folder: Path) -> int:
    """Distinct images in a fingerprint's folder; only looks."""
    parts = [ids for segment in folder.glob("*.safetensors") if (ids := _read_ids(segment)) is not None]
    return len(np.unique(np.concatenate(parts))) if parts else 0


def damage(segment: Path) -> str:
    """What is wrong with a segment; empty if nothing is."""
    return _verified(segment)[0]


def _verified(segment: Path) -> tuple[str, npt.NDArray[Any] | None]:
    """(what is wrong, the features): both empty for a segment that is gone."""
    try:
        content = segment.read_bytes()
    except FileNotFoundError:
        return "", None
    if digest(content) != segment.stem:
        return "its checksum does not agree with its content", None
    try:
        return "", load(content)["features"]
    except (SafetensorError, KeyError) as error:
        return f"it is no segment: {error}", None


def _read_ids(segment: Path) -> Ids | None:
    """The ids at the head of a segment, not verified; None if they cannot be read."""
    try:
        with segment.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < size:
                return None
            header = json.loads(file.read(length))
            begin, end = header["ids"]["data_offsets"]
            file.seek(8 + length + begin)
            content = file.read(end - begin)
            return np.frombuffer(content, _ID) if len(content) == end - begin else None
    except FileNotFoundError:
        return np.empty(0, _ID)
    except (ValueError, KeyError, TypeError):
        return None


def _drop(segment: Path, reason: str) -> None:
    say(f"features: cache segment {segment.name} is damaged ({reason}); its images are computed again")
    segment.unlink(missing_ok=True)
