"""The worker of a node for `graft predict`: the backbones of a package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of
from graft.tasks.common.images.decode import Picture
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.unreadable import UnreadableImage
from graft.tasks.features.runners.pinned import require_precision
from graft.tasks.register.packaged_eyes import PackagedEyes, eyes_in

from .embedder import Node, files_of, wanted_in
from .fetch import Fetcher
from .pool import Answer

if TYPE_CHECKING:
    import pandas as pd

NEVER = float("inf")


class PackageEmbedder(Node):
    """Of the backbones of a package."""

    def _open(self, folder: Path) -> None:
        files = files_of(self._job["package"], self._exchange, folder / "blobs")
        precisions = {eye["precision"] for eye in eyes_in(read_json(files[0]))}
        require_precision(precisions, self._job["fast"])
        self._eyes = PackagedEyes(files[0].parent)
        self._eyes.load()
        uploaded = Fetcher(self._exchange.below(self._job["folder"]), self._images)
        self._fetchers = {False: self._fetcher, True: uploaded}

    def _work(self, block: pd.DataFrame, place: Path) -> Answer:
        """An image that cannot be read is left out: the submitter reads it again, and says why it cannot."""
        images = place / "images"
        for uploaded, fetcher in self._fetchers.items():
            fetcher.bring(wanted_in(block[block["uploaded"] == uploaded]), images)
        with self._computing:
            computed = compute([images / md5 for md5 in block["image_id"]], self._eyes, Paths(place), self._job)
        return {"segments": self._put(Paths(place).cache), "rejected": {}, "computed": computed}


def compute(files: list[Path], eyes: PackagedEyes, paths: Paths, job: dict[str, Any]) -> int:
    """Computes the features of those files that can be read into the caches of each backbone; returns of how many.

    Args:
        files: named by their md5; some may not exist.
        job: `caches` has for each backbone its cache's folder, dimension and dtype.
    """
    files = [file for file in files if file.exists()]
    read_N = np.zeros(len(files), np.bool_)

    @contextmanager
    def decode(i: int) -> Iterator[Picture]:
        with ExitStack() as held:
            try:
                content = held.enter_context(content_of(files[i], eyes.reading.limits))
                picture = held.enter_context(eyes.reading.image(content))
                read_N[i] = True
            except (OSError, UnreadableImage):
                picture = eyes.reading.black()
            yield picture

    folder = paths.cache / "features"
    ids = ids_of([file.name for file in files])
    with ExitStack() as opened:
        caches = [
            opened.enter_context(FeatureCache(folder / one["folder"], one["dimension"], one["dtype"], NEVER))
            for one in job["caches"]
        ]
        for places, features_BD in eyes.stream(decode, len(files)):
            kept = read_N[places]
            for cache, columns in zip(caches, eyes.columns, strict=True):
                cache.add(ids[places[kept]], np.ascontiguousarray(features_BD[kept, columns]))
    return int(read_N.sum())
