"""Features of one block of items, on a machine that has no project: from files named by their md5, into an empty
cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...common.core.errors import DataError
from ...common.core.paths import Paths
from ...common.feature_cache.segments import FeatureCache, ids_of
from ...common.feature_cache.thumbnails import thumbnail_cache
from ...common.images.decode import Picture
from ...common.images.reading import Reading
from ...common.maps.form import MapForm
from ..extractor import Extractor
from ..params import FeaturesParams
from ..views import Items
from ..work import Eye, Mask, Source
from .local import Loader, compute
from .pinned import restore

NEVER = float("inf")
"""A segment of a block is written when it is full, not after some seconds: blocks are short."""


class BlockRunner:
    """Backbones that another machine has pinned, ready to compute.

    Args:
        params: of the features stage, as JSON.
        reading: how images are read, as JSON.
        eyes: what `pinned.describe` says of each backbone.
        files: of each backbone.

    Raises:
        Unable: this machine would compute other features.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        reading: Mapping[str, Any],
        eyes: Sequence[Mapping[str, Any]],
        files: Sequence[list[Path]],
    ) -> None:
        self._params = FeaturesParams.model_validate(params)
        self._reading = Reading.from_dict(dict(reading))
        self._pinned = [facts["fingerprint"] for facts in eyes]
        self._known = [_built_once(*restore(facts, own)) for facts, own in zip(eyes, files, strict=True)]

    def compute(self, block: pd.DataFrame, images: Path, missing: Mapping[str, str], place: Path) -> dict[str, str]:
        """Computes a block into the cache of the project folder `place`, which is new.

        Args:
            block: columns `id` and `image_id` (hexadecimal), `path` (the image's name), `number` (of the view), and
                `wanted_0`, ... for each backbone.
            images: the folder with the files, named by `image_id`, with which their content has been compared.
            missing: image_id -> why its file is not there.

        Returns:
            Path -> reason, of the images that cannot be read.
        """
        paths = Paths(place)
        manifest = block[["image_id", "path"]].drop_duplicates("image_id").reset_index(drop=True)
        rows = pd.Index(manifest["image_id"]).get_indexer(block["image_id"])
        items = Items(ids_of(list(block["id"])), rows, block["number"].to_numpy(np.int64))
        named = manifest.assign(path=manifest["image_id"])
        small = thumbnail_cache(paths, self._reading, NEVER)
        source = Source(named, items, self._params, images, self._reading, small)
        wanted_EM = np.array([block[f"wanted_{number}"].to_numpy(np.bool_) for number in range(len(self._known))])
        bad = {row: missing[name] for row, name in enumerate(manifest["image_id"]) if name in missing}
        self._compute(self._eyes(paths), wanted_EM, source, bad)
        return {manifest["path"].iloc[row]: reason for row, reason in sorted(bad.items())}

    def _compute(self, eyes: list[Eye], wanted_EM: Mask, source: Source, bad: dict[int, str]) -> None:
        """All items but those of bad rows, which are added to `bad`; each costs a new start of the block's rest."""
        while True:
            for eye, wanted_M in zip(eyes, wanted_EM, strict=True):
                eye.cache.refresh()
                wanted_M &= ~np.isin(source.items.rows, list(bad)) & ~eye.cache.has(source.items.ids)
            source.small.refresh()
            if not wanted_EM.any():
                return
            loader = _Noting([eye.spec for eye in eyes], source, bad)
            before = len(bad)
            try:
                compute(eyes, wanted_EM, source, loader, lambda count: None)
            except DataError:
                if len(bad) == before:
                    raise

    def _eyes(self, paths: Paths) -> list[Eye]:
        eyes = []
        for (extractor, form), pinned in zip(self._known, self._pinned, strict=True):
            folder = paths.cache / "features" / pinned["digest"]
            kept = FeatureCache(folder, extractor.spec.dimension, pinned["dtype"], NEVER)
            eyes.append(Eye(extractor, pinned, kept, form))
        return eyes


class _Noting(Loader):
    """Notes the rows whose image cannot be read; the md5 of each has been compared when it was fetched."""

    def __init__(self, specs: Any, source: Source, bad: dict[int, str]) -> None:
        super().__init__(specs, source)
        self._expected = [None] * len(self._expected)
        self._bad = bad

    @contextmanager
    def decode(self, place: int) -> Iterator[Picture]:
        with ExitStack() as held:
            try:
                picture = held.enter_context(super().decode(place))
            except DataError as error:
                self._bad[int(self._items.rows[place])] = str(error.got)
                raise
            yield picture


def _built_once(extractor: Extractor, form: MapForm | None) -> tuple[Extractor, MapForm | None]:
    """An engine takes a second to start, which a block must not cost."""
    return replace(extractor, build=cache(extractor.build)), form
