"""The reference in a package: features of images of its data, to compare new images with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ..common.core.files import read_json, write_json
from ..common.core.progress import progress
from ..common.engines.openvino import Features
from ..common.feature_cache.segments import Ids
from ..common.images.decode import Picture
from .packaged_eyes import PackagedEyes

NAME = "reference"


@dataclass(frozen=True)
class Reference:
    """n images whose features represent the training data of a model.

    Attributes:
        features_nD: by the graphs of the package, in the stored precision; of maps their means, see
            `PackagedEyes.summary`.
        groups_n: int64 codes of the units, see `data/units.py`; images of one unit are not independent.
        seen_ids: (S,) keys of all images that the weights were trained on or that are in this sample.
        held_out_ids: (H,) keys of all other images: of test and validation.
        lent_ids: (L,) keys among `seen_ids` of images that are only in the sample.
        fingerprint: of the feature set with the same numbers; empty if there is none.
    """

    features_nD: npt.NDArray[Any]
    groups_n: npt.NDArray[np.int64]
    seen_ids: Ids
    held_out_ids: Ids
    fingerprint: str
    lent_ids: Ids = field(default_factory=lambda: np.empty(0, "V16"))

    @property
    def trained_ids(self) -> Ids:
        """Keys of the images that the weights were trained on, (T,)."""
        return np.setdiff1d(self.seen_ids, self.lent_ids)

    @property
    def judged_ids(self) -> Ids:
        """Keys of the images that the model was chosen and tested on."""
        return np.union1d(self.held_out_ids, self.lent_ids)

    def save(self, folder: Path) -> None:
        """reference.safetensors with the arrays, reference.json with the rest."""
        tensors = {
            "features": np.ascontiguousarray(self.features_nD),
            "groups": self.groups_n,
            "seen": _as_bytes(self.seen_ids),
            "held_out": _as_bytes(self.held_out_ids),
            "lent": _as_bytes(self.lent_ids),
        }
        save_file(tensors, folder / f"{NAME}.safetensors")
        write_json(folder / f"{NAME}.json", {"images": len(self.features_nD), "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, folder: Path) -> Reference | None:
        """None if the package has no reference."""
        if not (folder / f"{NAME}.json").is_file():
            return None
        tensors = load_file(folder / f"{NAME}.safetensors")
        ids = {key: tensors[key].reshape(-1).view("V16") for key in ("seen", "held_out", "lent") if key in tensors}
        return cls(
            features_nD=tensors["features"],
            groups_n=tensors["groups"],
            seen_ids=ids["seen"],
            held_out_ids=ids["held_out"],
            fingerprint=read_json(folder / f"{NAME}.json")["fingerprint"],
            **({"lent_ids": ids["lent"]} if "lent" in ids else {}),
        )


def _as_bytes(ids: Ids) -> npt.NDArray[np.uint8]:
    return ids.view(np.uint8).reshape(-1, 16)


def package_features(package: Path, files: Sequence[Path], image_ids: Sequence[str], what: str) -> Features:
    """Features, float32 (N, D), by the graphs and the transforms of a package; of maps their means over the places.

    Args:
        image_ids: the md5 of each file.
        what: the name of the progress bar.

    Raises:
        DataError: an image was removed, changed or damaged after it was checked.
    """
    eyes = PackagedEyes(package)

    def decode(i: int) -> AbstractContextManager[Picture]:
        return eyes.reading.file(files[i], image_ids[i])

    with progress(what, len(files) * len(eyes)) as bar:
        return eyes.summaries(decode, len(files), bar.add)
