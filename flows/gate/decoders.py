"""Champion and challenger as decoders: what they decode of the same test images, beside the targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.heads.decoder import DecoderHead
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.common.maps.targets import Targets
from graft.tasks.common.scoring.decoded import columns
from graft.tasks.common.scoring.judging import Judge
from graft.tasks.register.serving import ImageClassifier

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def why_not(package: Path, paths: Paths) -> str:
    """Why a champion's decoder cannot be compared with the current one; empty if it can, or for other heads."""
    theirs, own = (read_json(folder / "head.json").get("target") for folder in (package, paths.head))
    return "" if theirs == own else f"the champion decodes `head.target: {theirs}`, the current model {own}"


def challenger(paths: Paths, pack: FeatureSet) -> Floats:
    """Of each test image the numbers that its metrics are made of, see `scoring/images.py`; nan without a target."""
    found = pd.read_parquet(paths.report / "predictions.parquet").set_index("path")
    return columns(found.reindex(pack.index["path"].iloc[pack.rows("test")]))


def champion(package: Path, pack: FeatureSet, rows: Rows, paths: Paths) -> Floats:
    """The same of these rows. Its maps are recomputed only if the feature set has other ones."""
    head, model = load_head(package), ImageClassifier(package)
    assert isinstance(head, DecoderHead)
    same = (pack.maps_fingerprint or {}).get("digest") == read_json(package / "package.json")["fingerprint"]
    maps: Any = open_maps(pack, paths) if same else PackageMaps(model, pack, paths)
    targets = Targets.of(pack, paths, model.eyes.transform, head.target)  # type: ignore[arg-type]
    return columns(Judge(head, maps, targets).table(rows, "gate: the champion"))


class PackageMaps:
    """The maps that a package computes of a feature set's images, as `Maps` gives them."""

    def __init__(self, model: ImageClassifier, pack: FeatureSet, paths: Paths) -> None:
        self._model, self._pack, self._paths = model, pack, paths

    def blocks(self, rows: Rows, size: int = 64) -> Iterator[tuple[Rows, npt.NDArray[np.float32]]]:
        """(places in `rows`, maps)."""
        files = [self._paths.raw / name for name in self._pack.index["path"].iloc[rows]]
        for start in range(0, len(rows), size):
            part = files[start : start + size]
            yield np.arange(start, start + len(part)), self._model.features(part)
