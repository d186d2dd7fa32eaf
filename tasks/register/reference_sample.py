"""The sample of images that goes into the package, for `graft drift` to compare later ones with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..common.data.feature_set import FeatureSet, Rows
from ..common.feature_cache.segments import ids_of
from .reference_set import Reference, group_codes, package_features

SAMPLE = 1000
"""Images at most. More would make the comparison finer than anybody wants to know, and the package larger."""

SEED = 0


def write_reference(package: Path, pack: FeatureSet, raw: Path, *, tuned: bool) -> None:
    """Puts the reference beside the package's graph, which is there already.

    Of a frozen network it is a sample of the training images. A network that was fine-tuned may have learned its
    training images by heart, and give them other features than images like them; so then it is of those held out.
    """
    rows = sample_rows(pack, "val", "test") if tuned else sample_rows(pack, "train")
    same = not tuned and pack.fingerprint["engine"] == "openvino"
    files = [raw / path for path in pack.index["path"].iloc[rows]]
    ids = ids_of(list(pack.index["image_id"]))
    trained = ids[pack.rows("train")]
    seen = np.union1d(trained, ids[rows])
    Reference(
        features_nD=pack.stored_ND[rows] if same else package_features(package, files, "register: reference"),
        groups_n=group_codes(pack.index["group"].iloc[rows]),
        seen_ids=seen,
        held_out_ids=np.setdiff1d(ids, seen),
        fingerprint=pack.fingerprint["digest"] if same else "",
        lent_ids=np.setdiff1d(ids[rows], trained),
    ).save(package)


def sample_rows(pack: FeatureSet, *splits: str) -> Rows:
    """At most `SAMPLE` rows, in order; of copies of a file one."""
    rows = pack.rows(*splits)
    rows = rows[~pack.index["image_id"].iloc[rows].duplicated().to_numpy()]
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:SAMPLE])
