"""What there is to compute, and the interface of those who compute it, the runners."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.engines.openvino import Features
from ..common.feature_cache.segments import FeatureCache, Ids
from ..common.images.reading import Reading
from ..common.maps.form import MapForm
from ..common.maps.keep import finite
from .extractor import Extractor
from .params import FeaturesParams
from .views import Items

Mask = npt.NDArray[np.bool_]


@dataclass
class Effort:
    """What was computed: number of images and views, by each backbone; of images whose maps were computed; seconds from
    the first file to the last segment on disk; and on how many machines, 0 if nothing was computed."""

    computed: int = 0
    maps: int = 0
    seconds: float = 0.0
    nodes: int = 0


@dataclass(frozen=True)
class Eye:
    """A backbone at one size: how its features are computed, what identifies them, and where they are kept; `form` if
    they are maps."""

    extractor: Extractor
    fingerprint: dict[str, Any]
    cache: FeatureCache
    form: MapForm | None = None

    @property
    def spec(self) -> Spec:
        return self.extractor.spec

    def add(self, ids: Ids, batch_BD: Features) -> None:
        with finite(self.spec.backbone) if self.form else nullcontext():
            self.cache.add(ids, batch_BD)


@dataclass(frozen=True)
class Source:
    """What all backbones see.

    Attributes:
        manifest: of the images, in order.
        raw: the folder of the images.
        reading: how images are read.
        small: the cache of thumbnails for the audit.
    """

    manifest: pd.DataFrame
    items: Items
    params: FeaturesParams
    raw: Path
    reading: Reading
    small: FeatureCache


class Runner(Protocol):
    """Computes what the caches lack, here or elsewhere."""

    def __call__(self, eyes: list[Eye], wanted_EM: Mask, source: Source, effort: Effort) -> None:
        """Adds to each backbone's cache the features of the items that it wants, and the thumbnails of those images to
        theirs; then each cache is refreshed and holds them all. Counts what it did in `effort`.

        Raises:
            DataError: an image has been removed, changed or damaged since it was checked.
        """


def announce(eyes: list[Eye], wanted_EM: Mask) -> list[str]:
    """What is computed: one line a backbone."""
    lines = []
    for eye, wanted_M in zip(eyes, wanted_EM, strict=True):
        what = f"{'maps of ' if eye.form else ''}{eye.spec.backbone}, {eye.extractor.engine} {eye.extractor.precision}"
        lines.append(f"features: {what}; {np.count_nonzero(wanted_M):,} of {len(wanted_M):,} are new")
    return lines


def account(eyes: list[Eye], wanted_EM: Mask, effort: Effort) -> None:
    """Counts these items as computed, and looks at what the caches hold now."""
    for eye in eyes:
        eye.cache.refresh()
    maps = int(np.count_nonzero(wanted_EM[[bool(eye.form) for eye in eyes]]))
    effort.maps += maps
    effort.computed += int(np.count_nonzero(wanted_EM)) - maps
