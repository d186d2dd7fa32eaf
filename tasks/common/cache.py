"""The feature cache: what a backbone once computed of an image is never computed again.

One folder a fingerprint; in it append-only segments, each a safetensors file named by the hash of its content and
renamed into place, so that a killed process leaves whole segments or none. It lies outside DVC's outs, which DVC
deletes before a run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .files import whole_file
from .progress import say

SEGMENT = 2048
"""Images a segment: what a crash can lose at most."""

Features = npt.NDArray[np.float32]


class FeatureCache:
    """Features by image under one fingerprint.

    Args:
        folder: of this fingerprint.
        dimension: D, the length of a feature vector.

    Used as a context: what was added is on disk when the block ends, however it ends.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder, self.dimension = folder, dimension
        self._rows: dict[str, Features] = {}
        self._new: list[tuple[str, Features]] = []
        for segment in sorted(folder.glob("*.safetensors")):
            self._read(segment)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> Features:
        """Float32 of shape (D,)."""
        return self._rows[image_id]

    def add(self, image_id: str, features: Features) -> None:
        self._rows[image_id] = features
        self._new.append((image_id, features))
        if len(self._new) >= SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last flush as one segment."""
        if not self._new:
            return
        ids = np.frombuffer(bytes.fromhex("".join(image_id for image_id, _ in self._new)), np.uint8)
        tensors: dict[str, npt.NDArray[Any]] = {
            "ids": ids.reshape(-1, 16),
            "features": np.stack([row for _, row in self._new]),
        }
        content = save(tensors, metadata={"digest": _digest(tensors)})
        with whole_file(self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors") as part:
            part.write_bytes(content)
        self._new.clear()

    def _read(self, segment: Path) -> None:
        """A damaged segment is named and dropped, so that its images are computed again."""
        try:
            with safe_open(segment, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in ("ids", "features")}
                sound = (file.metadata() or {}).get("digest") == _digest(tensors)
        except (SafetensorError, OSError) as error:
            self._drop(segment, str(error))
            return
        if not sound or tensors["features"].shape[1] != self.dimension:
            self._drop(segment, "its checksum does not agree with its content")
            return
        self._rows.update(zip((row.tobytes().hex() for row in tensors["ids"]), tensors["features"], strict=True))

    def _drop(self, segment: Path, reason: str) -> None:
        say(f"features: cache segment {segment.name} is damaged ({reason}); its images are computed again")
        segment.unlink()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def _digest(tensors: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
