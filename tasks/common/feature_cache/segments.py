"""The feature cache: what a backbone once computed of an image is never computed again.

One folder a fingerprint; in it segments that never change, each a safetensors file named by the hash of its content and
renamed into place. So a killed process leaves whole segments or none, and processes that work at once cannot harm each
other: at worst the same features are written twice. It lies outside DVC's outs, which DVC deletes before a run.

Many small segments are merged into large ones (`compact`): the large one is on disk before the small ones are removed.

Only ids are held in memory, 24 bytes an image; features are read segment by segment and verified before use.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..core.blocks import blocks
from ..core.errors import GraftError
from ..core.files import digest, write_shared
from ..core.progress import say

SEGMENT = 1024
"""Images a segment: what a crash can lose at most."""

SEGMENT_BYTES = 16 * 2**20
"""Of the features of a segment, which is read as a whole: feature maps take 100 KB to some MB an image."""

SEGMENT_SECONDS = 5.0
"""A slow backbone's segment is written after this time, full or not."""

LARGEST_HEADER = 2**16
"""Bytes; that of a segment has some hundred."""

MANY = 16
"""Small segments that a folder may hold before they are merged: some minutes of a slow backbone, or as many runs that
each added a few images."""

ROUNDS = 3
"""A segment that is damaged is computed again, and read again; one that is damaged every time is a broken disk."""

Dtype = Literal["float32", "float16"]

Features = npt.NDArray[np.float32]
"""float32, shape (N, D)."""

Ids = npt.NDArray[np.void]
"""Keys of 16 bytes, shape (N,): an image's md5, or the hash of an image and a view."""

_ID = np.dtype("V16")

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}


def ids_of(hexadecimal: list[str]) -> Ids:
    """Keys from texts of 32 hexadecimal digits."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), _ID)


VIEWS = 3
"""Raised whenever a change in `augment` makes other views of the same number."""


def view_key(image_id: str, number: int, recipe: str) -> str:
    """Of an image's view: 32 hexadecimal digits, for `ids_of`."""
    return hashlib.blake2b(f"{image_id} {number} {recipe}".encode(), digest_size=16).hexdigest()


class NotFinite(GraftError):
    """Features that are infinite, no numbers, or too large for half precision."""


class FeatureCache:
    """Features by image under one fingerprint.

    Args:
        folder: of this fingerprint.
        dimension: D, the length of a feature vector.
        dtype: in which features are kept. Half precision takes half the space.
        every: seconds after which a segment is written, full or not.

    Used as a context: what was added is on disk when the block ends, however it ends. Where it ends well and there are
    many small segments, they are merged; call `refresh` before reading.
    """

    def __init__(self, folder: Path, dimension: int, dtype: Dtype = "float32", every: float = SEGMENT_SECONDS) -> None:
        self.folder, self.dimension, self.dtype, self._every = folder, dimension, np.dtype(dtype), every
        self._new: list[tuple[Ids, npt.NDArray[Any]]] = []
        self._written = time.monotonic()
        self.refresh()

    def __len__(self) -> int:
        """Distinct images on disk."""
        return len(self._ids)

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids` (N,) are on disk."""
        return self._find(ids)[0]

    def segments_of(self, ids: Ids) -> list[Path]:
        """The segments that hold those of `ids` (N,) that are there."""
        found, entry = self._find(ids)
        return [self._segments[number] for number in np.unique(self._segment_of[entry[found]])]

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
                    wanted, features = features[self._row_of[entry[places[part]]]], None  # one segment in memory
                    yield places[part], wanted

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
            NotFinite: some are no numbers, or too large for half precision.
        """
        with np.errstate(over="ignore"):
            kept = features.astype(self.dtype, copy=False)
        if not np.isfinite(kept).all():
            raise NotFinite(
                "the backbone gave features that cannot be kept",
                got=f"{np.count_nonzero(~np.isfinite(kept))} values that are not finite as {self.dtype}",
                todo="use `features.dtype: float32` and `features.precision: f32`, or another backbone",
            )
        self._new.append((ids, kept))
        if self._is_full() or time.monotonic() - self._written >= self._every:
            self.flush()

    def _is_full(self) -> bool:
        images, size = sum(len(ids) for ids, _ in self._new), sum(features.nbytes for _, features in self._new)
        return images >= SEGMENT or size >= SEGMENT_BYTES

    def flush(self) -> None:
        """Writes what was added since the last flush: as one segment, unless that were too large to be read."""
        if self._new:
            ids, features = map(np.concatenate, zip(*self._new, strict=True))
            self._new = []
            for part in blocks(len(ids), max(1, SEGMENT_BYTES // max(1, features[:1].nbytes))):
                _write(self.folder, ids[part], features[part])
        self._written = time.monotonic()

    def refresh(self) -> None:
        """Looks which images the segments hold, those of other processes too; of one in several, any will do."""
        for _ in range(ROUNDS):
            index = _index(self.folder)
            if all(segment.exists() for segment in index):
                break  # else another process has just merged some, and the merged segment is not listed yet
        self._segments, parts = list(index), list(index.values())
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
        reason, tensors = _verified(segment)
        features = tensors.get("features")
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
        if error is None and sum(_is_small(*one) for one in _index(self.folder).items()) > MANY:
            compact(self.folder)


def compact(folder: Path) -> int:
    """Merges the small segments of a fingerprint's folder into segments of up to `SEGMENT` images or `SEGMENT_BYTES`.

    Safe beside runs and other merges. A segment is removed only when its features are on disk in another one whose name
    has never been used before, so that no process can remove that one because of an older listing. A reader that finds
    a segment missing lists the folder again. A process that is killed leaves features twice, and loses none.

    Returns:
        By how many segments there are fewer now.
    """
    small = {segment: len(ids) for segment, ids in _index(folder).items() if len(ids) and _is_small(segment, ids)}
    return sum(_merge(folder, group) for group in _groups(small) if len(group) > 1)


def _is_small(segment: Path, ids: Ids) -> bool:
    """Whether a segment is to be merged: two of these fit into one."""
    return len(ids) <= SEGMENT // 2 and _size(segment) <= SEGMENT_BYTES // 2


def _size(segment: Path) -> int:
    try:
        return segment.stat().st_size
    except FileNotFoundError:  # another process has merged it
        return 0


def _groups(small: dict[Path, int]) -> list[list[Path]]:
    """Each as many segments in their order as fit into one.

    Args:
        small: the images of each.
    """
    groups: list[list[Path]] = []
    images, size = SEGMENT, 0
    for segment, more in small.items():
        images, size = images + more, size + _size(segment)
        if images > SEGMENT or size > SEGMENT_BYTES:
            groups.append([])
            images, size = more, _size(segment)
        groups[-1].append(segment)
    return groups


def _merge(folder: Path, segments: list[Path]) -> int:
    """Skips segments that are damaged (the next reader reports it), missing, or of another dimension."""
    read = {segment: tensors for segment in segments if (tensors := _verified(segment)[1])}
    forms = {segment: (tensors["features"].dtype, tensors["features"].shape[1:]) for segment, tensors in read.items()}
    alike = [segment for segment, form in forms.items() if form == next(iter(forms.values()))]
    if len(alike) < 2 or not all(segment.exists() for segment in segments):  # or another process is merging them
        return 0
    ids = np.concatenate([read[segment]["ids"].reshape(-1).view(_ID) for segment in alike])
    features = np.concatenate([read[segment]["features"] for segment in alike])
    del read
    first = np.sort(np.unique(ids, return_index=True)[1])
    if len(first) < len(ids):
        ids, features = ids[first], features[first]
    _write(folder, ids, features, merged=secrets.token_hex(16))
    for segment in alike:
        segment.unlink(missing_ok=True)
    return len(alike) - 1


def _write(folder: Path, ids: Ids, features: npt.NDArray[Any], **about: str) -> None:
    """A segment of these images. `about` goes into its header, and so into its name."""
    tensors = {"ids": ids.view(np.uint8).reshape(-1, 16), "features": features}
    content = save(tensors, about or None)
    write_shared(folder / f"{digest(content)}.safetensors", content)


def _index(folder: Path) -> dict[Path, Ids]:
    """Every segment of a folder and its ids; what cannot be read is named and dropped."""
    index: dict[Path, Ids] = {}
    for segment in sorted(folder.glob("*.safetensors")):
        ids = _read_ids(segment)
        if ids is None:
            _drop(segment, "it is cut short, or no segment")
        else:
            index[segment] = ids
    return index


def count_images(folder: Path) -> int:
    """Distinct images in a fingerprint's folder; only looks."""
    parts = [ids for segment in folder.glob("*.safetensors") if (ids := _read_ids(segment)) is not None]
    return len(np.unique(np.concatenate(parts))) if parts else 0


def damage(segment: Path) -> str:
    """What is wrong with a segment; empty if nothing is."""
    return _verified(segment)[0]


def _verified(segment: Path) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """(what is wrong, `ids` and `features`): both empty for a segment that no longer exists."""
    try:
        content = segment.read_bytes()
    except FileNotFoundError:
        return "", {}
    if digest(content) != segment.stem:
        return "its checksum does not agree with its content", {}
    try:
        return "", {name: _tensor(content, name) for name in ("ids", "features")}
    except (ValueError, KeyError, TypeError) as error:
        return f"it is no segment: {error}", {}


def _tensor(content: bytes, name: str) -> npt.NDArray[Any]:
    """A tensor of a safetensors file, not copied: 8 bytes with the length of the header, the header, the values.

    Raises:
        ValueError, KeyError, TypeError: it is another kind of file, or has no such tensor.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    about = json.loads(content[8:begin])[name]
    place = begin + about["data_offsets"][0]
    return np.frombuffer(content, _DTYPES[about["dtype"]], math.prod(about["shape"]), place).reshape(about["shape"])


def ids_in(file: BinaryIO) -> Ids:
    """The ids of a segment that lies elsewhere, not verified; none if it is cut short, or no segment.

    Args:
        file: only its ids are read, wherever they lie in it.
    """
    try:
        size = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(min(size, LARGEST_HEADER)))["ids"]
        begin, end = about["data_offsets"]
        file.seek(8 + size + begin)
        return np.frombuffer(file.read(min(end - begin, SEGMENT_BYTES)), _ID)
    except (ValueError, KeyError, TypeError):
        return np.empty(0, _ID)


def _read_ids(segment: Path) -> Ids | None:
    """The ids at the head of a segment, not verified; None if they cannot be read."""
    try:
        with safe_open(segment, framework="np") as file:
            return np.asarray(file.get_tensor("ids")).reshape(-1).view(_ID)
    except FileNotFoundError:
        return np.empty(0, _ID)
    except (OSError, ValueError, SafetensorError):
        return None


def _drop(segment: Path, reason: str) -> None:
    say(f"features: cache segment {segment.name} is damaged ({reason}); its images are computed again")
    segment.unlink(missing_ok=True)
