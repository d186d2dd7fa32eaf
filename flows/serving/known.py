"""The features that a model has computed before, in the project's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from graft.tasks.common.core.files import json_digest, read_json, sha256, write_shared_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.engines.openvino import Features
from graft.tasks.common.feature_cache.segments import Dtype, FeatureCache, Ids
from graft.tasks.register.packaged_eyes import eyes_in, reading_in

from .loading import Predictor

PACKAGED = 1
"""Increased whenever a change in the code changes the features of an image."""


class KnownFeatures:
    """Caches by image of the features of each backbone of a model, side by side D columns.

    Args:
        caches: of each backbone, in order.
        grow: whether what is computed is kept; maps of pictures that are seen once would soon fill the disk.
    """

    def __init__(self, caches: Sequence[FeatureCache], grow: bool = True) -> None:
        self._caches, self._grow = caches, grow
        stops = np.cumsum([cache.dimension for cache in caches]).tolist()
        self._columns = [slice(stop - cache.dimension, stop) for stop, cache in zip(stops, caches, strict=True)]

    def __len__(self) -> int:
        """An upper bound of the images whose features are known."""
        return min(map(len, self._caches))

    def fill(self, features_BD: Features, ids_B: Ids) -> npt.NDArray[np.bool_]:
        """Copies what is known into `features_BD`; returns which images (B,) it is known of."""
        known_B = self.has(ids_B)
        wanted = np.flatnonzero(known_B)
        read_EB = np.zeros((len(self._caches), len(ids_B)), np.bool_)
        for number, (cache, columns) in enumerate(zip(self._caches, self._columns, strict=True)):
            for places, block in cache.read(ids_B[wanted]):
                features_BD[wanted[places], columns] = block
                read_EB[number, wanted[places]] = True
        return np.logical_and.reduce(read_EB)

    def has(self, ids_B: Ids) -> npt.NDArray[np.bool_]:
        """Of which images (B,) all features are known."""
        return np.logical_and.reduce([cache.has(ids_B) for cache in self._caches])

    @property
    def grows(self) -> bool:
        """Whether what is computed is kept."""
        return self._grow

    def refresh(self) -> None:
        """Looks for what other processes have added."""
        for cache in self._caches:
            cache.refresh()

    def caches(self) -> list[dict[str, Any]]:
        """For each backbone `folder` (the name of its cache), `dimension` and `dtype`."""
        return [
            {"folder": cache.folder.name, "dimension": cache.dimension, "dtype": str(cache.dtype)}
            for cache in self._caches
        ]

    def add(self, ids_B: Ids, features_BD: Features) -> None:
        if self._grow:
            for cache, columns in zip(self._caches, self._columns, strict=True):
                cache.add(ids_B, np.ascontiguousarray(features_BD[:, columns]))


@contextmanager
def known_features(model: Predictor) -> Iterator[KnownFeatures | None]:
    """Of a model in a project; None outside one. A frozen backbone shares the cache of the stage `features`; maps are
    only read from there."""
    if model.root is None:
        yield None
        return
    cache, maps = Paths(model.root).cache / "features", model.classifier.eyes.form is not None
    with ExitStack() as opened:
        caches = [
            opened.enter_context(FeatureCache(_folder(cache, eye, model), dimension, _dtype(model)))
            for eye, dimension in zip(eyes_in(model.facts), _dimensions(model), strict=True)
        ]
        yield KnownFeatures(caches, grow=not maps)


def _dtype(model: Predictor) -> Dtype:
    """In which features are kept: maps in half precision, to which the package rounds them too."""
    return "float32" if model.classifier.eyes.form is None else "float16"


def _dimensions(model: Predictor) -> list[int]:
    eyes = eyes_in(model.facts)
    return [eye["dimension"] for eye in eyes] if len(eyes) > 1 else [model.classifier.dimension]


def _folder(cache: Path, eye: dict[str, Any], model: Predictor) -> Path:
    shared = _of_the_stage(cache, eye, model)
    if shared is not None:
        return shared
    note = _fingerprint(eye, model)
    folder = cache / str(note["digest"])
    write_shared_json(folder / "fingerprint.json", note)  # also says when it was last used
    return folder


def _of_the_stage(cache: Path, eye: dict[str, Any], model: Predictor) -> Path | None:
    """The folder in which the stage `features` keeps what this backbone computes, if it is the same to the bit."""
    reference = model.folder / "reference.json"
    if not reference.is_file() or not read_json(reference)["fingerprint"]:
        return None  # it was fine-tuned, or another engine computed the features
    folder = cache / str(eye.get("fingerprint", model.facts["fingerprint"]))
    note = folder / "fingerprint.json"
    found = read_json(note) if note.is_file() else {}
    same = {"dtype": _dtype(model), "engine": "openvino", "decoder": f"pillow {PIL.__version__}"}
    return folder if all(found.get(key) == value for key, value in same.items()) else None


def _fingerprint(eye: dict[str, Any], model: Predictor) -> dict[str, Any]:
    """Everything that determines the features of an image, and `digest`, its hash."""
    facts = {
        "backbone": eye.get("backbone", model.facts.get("backbone", "")),
        "graph": [sha256(model.folder / f"{eye['graph']}{suffix}") for suffix in (".xml", ".bin")],
        "transform": eye["transform"],
        "reading": asdict(reading_in(model.facts)),
        "engine": "openvino",
        "device": "cpu",
        "precision": eye["precision"],
        "dtype": _dtype(model),
        "decoder": f"pillow {PIL.__version__}",
        "packaged": PACKAGED,
    }
    return {**facts, "digest": json_digest(facts)}
