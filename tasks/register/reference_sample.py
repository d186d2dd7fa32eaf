"""The sample of images in the package, which `graft drift` compares new images with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.paths import Paths
from ..common.data.eyes import each
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.units import units_of
from ..common.feature_cache.segments import ids_of
from ..common.maps.maps import open_maps
from .reference_set import Reference, package_features

SAMPLE = 1000
"""Maximum number of images: more would enlarge the package for differences of no practical importance."""

SEED = 0


def write_reference(package: Path, pack: FeatureSet, paths: Paths, *, tuned: bool, refitted: bool) -> None:
    """Writes the reference beside the graphs of the package, which must exist.

    For a frozen network it is a sample of the training images. A fine-tuned network may have memorised the images that
    it learned from, and give them other features than similar images; so then it is a sample of the held-out images.

    Args:
        refitted: whether the weights were also fitted to the validation images, once these had chosen the model.
    """
    learned, others = (("train", "val"), ("test",)) if refitted else (("train",), ("val", "test"))
    rows = sample_rows(pack, *others) if tuned else sample_rows(pack, "train")
    source = pack.maps_fingerprint or pack.fingerprint
    same = not tuned and all(one["engine"] == "openvino" for one in each(source))
    files, image_ids = [paths.raw / path for path in pack.index["path"].iloc[rows]], list(pack.index["image_id"])
    ids = ids_of(image_ids)
    trained = ids[pack.rows(*learned)]
    seen = np.union1d(trained, ids[rows])
    Reference(
        features_nD=_stored(pack, rows, paths)
        if same
        else package_features(package, files, [image_ids[row] for row in rows], "register: reference"),
        groups_n=units_of(pack, np.arange(len(ids)))[0][rows],
        seen_ids=seen,
        held_out_ids=np.setdiff1d(ids, seen),
        fingerprint=source["digest"] if same else "",
        lent_ids=np.setdiff1d(ids[rows], trained),
    ).save(package)


def _stored(pack: FeatureSet, rows: Rows, paths: Paths) -> npt.NDArray[Any]:
    """What is known of these images: their features, or the means of their maps."""
    if pack.maps_fingerprint is None:
        return pack.stored_ND[rows]
    maps = open_maps(pack, paths)
    means_nC = np.empty((len(rows), maps.form.channels), np.float32)
    for places, maps_BD in maps.blocks(rows):
        means_nC[places] = maps.form.means(maps_BD)
    return means_nC


def sample_rows(pack: FeatureSet, *splits: str) -> Rows:
    """At most `SAMPLE` rows, in order; one of each picture with lossless copies."""
    rows = pack.rows(*splits)
    rows = rows[~pack.index["pixels"].iloc[rows].duplicated().to_numpy()]
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:SAMPLE])
