"""A training that other machines carry out: all that they need of the project, in a folder, but the weights' file, the
images and the cached maps. N images of the feature set, D features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from ..common.backbones.weights import WeightsSource
from ..common.core.files import read_json, write_json
from ..common.data.feature_set import FeatureSet, Rows
from ..common.feature_cache.segments import Ids
from ..common.heads.linear import LinearHead
from ..common.heads.load import load_linear_head
from ..common.images.reading import Reading
from .params import FinetuneParams

HEAD = "start"


@dataclass(frozen=True)
class Maps:
    """Cached maps that a training reads.

    Attributes:
        folder: the feature cache of their fingerprint.
        fingerprint: what they are.
        ids: of the images and views.
    """

    folder: Path
    fingerprint: dict[str, Any]
    ids: Ids


@dataclass(frozen=True)
class Order:
    """Attributes:
    params, pack, head, train, inner, name, stop, metric: see `session.Job`; the features of `pack` are not needed.
    weights: of the backbone.
    maps: of the frozen layers, if the training reads maps; else it reads the images of `train` and `inner`.
    checkpoint: from which the training goes on, if it exists, and which contains it when it has ended.
    seconds: end before they are over.
    most: processes that a step has images for.
    """

    params: FinetuneParams
    pack: FeatureSet
    head: LinearHead
    train: Rows
    inner: Rows
    name: str
    stop: int | None
    metric: str
    weights: WeightsSource
    maps: Maps | None
    checkpoint: Path
    seconds: float | None
    most: int

    def save(self, folder: Path) -> None:
        """Writes all but the weights' file, the images and the maps."""
        self.head.save(folder, HEAD)
        self.pack.reading.save(folder)
        self.pack.index.to_parquet(folder / "index.parquet")
        rows = {"train": self.train, "inner": self.inner}
        if self.maps is not None:
            rows["maps"] = self.maps.ids.view(np.uint8)
        save_file(rows, folder / "rows.safetensors")
        write_json(
            folder / "order.json",
            {
                "params": self.params.model_dump(mode="json"),
                "fingerprint": self.pack.fingerprint,
                "dimension": self.pack.stored_ND.shape[1],
                "name": self.name,
                "stop": self.stop,
                "metric": self.metric,
                "weights": [self.weights.kind, self.weights.where, self.weights.sha256],
                "maps": self.maps and self.maps.fingerprint,
                "checkpoint": self.checkpoint.name,
                "seconds": self.seconds,
                "most": self.most,
            },
        )

    @classmethod
    def load(cls, folder: Path, weights: Path | None, checkpoints: Path, cache: Path) -> Order:
        """What `save` wrote.

        Args:
            weights: their file; none where they are random.
            checkpoints: the folder for the checkpoint.
            cache: the folder of the maps.
        """
        facts, rows = read_json(folder / "order.json"), load_file(folder / "rows.safetensors")
        index, fingerprint = pd.read_parquet(folder / "index.parquet"), facts["maps"]
        nothing = np.broadcast_to(np.float32(0), (len(index), facts["dimension"]))
        kind, where, sha256 = facts["weights"]
        return cls(
            params=FinetuneParams.model_validate(facts["params"]),
            pack=FeatureSet(nothing, nothing[:0], index, facts["fingerprint"], Reading.load(folder)),
            head=load_linear_head(folder, HEAD),
            train=rows["train"],
            inner=rows["inner"],
            name=facts["name"],
            stop=facts["stop"],
            metric=facts["metric"],
            weights=WeightsSource(kind, where, weights, sha256),
            maps=fingerprint and Maps(cache, fingerprint, rows["maps"].view("V16")),
            checkpoint=checkpoints / facts["checkpoint"],
            seconds=facts["seconds"],
            most=facts["most"],
        )


Elsewhere = Callable[[Order], None]
"""Trains to the end on other machines; the order's checkpoint then contains the result.

Raises:
    GraftError: that has failed.
"""

FileOf = Callable[[str, str], Path]
"""(path below data/raw, image_id) -> the image on this machine."""


@dataclass(frozen=True)
class Place:
    """Where a training runs, if not in the project's own folder by one's own processes.

    Attributes:
        file_of: the images; none: those in data/raw.
        weights: of the backbone; none: they are searched for.
        maps: that are cached elsewhere; none: those of this project.
        elsewhere: trains for this process; none: it trains itself.
    """

    file_of: FileOf | None = None
    weights: WeightsSource | None = None
    maps: Maps | None = None
    elsewhere: Elsewhere | None = None


HERE = Place()
