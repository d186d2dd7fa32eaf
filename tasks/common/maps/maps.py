"""The maps of a project's images: from the cache, and computed where it lacks them. B images, D numbers a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backbones.graph import Graph
from ..backbones.spec import Spec
from ..core.errors import DataError
from ..core.files import write_shared_json
from ..core.paths import Paths
from ..core.progress import progress, say
from ..data.feature_set import FeatureSet, Rows
from ..engines.openvino import Engine
from ..feature_cache.segments import FeatureCache, ids_of
from ..images.decode import Pixels
from ..images.transform import load
from .form import MapForm, Wanted
from .graph import MapSource
from .keep import check_room, finite

Block = npt.NDArray[np.float16]
"""float16, shape (B, D)."""


@dataclass(frozen=True)
class Maps:
    """The maps of a feature set's images.

    Attributes:
        pack: the feature set.
        fingerprint: what computes the maps; `digest` names them in the cache.
        form: of a map.
    """

    pack: FeatureSet
    paths: Paths
    fingerprint: dict[str, Any]
    form: MapForm

    @cached_property
    def graph(self) -> Graph:
        """For OpenVINO: from uint8 pixels (B, H, W, C) to maps, float32 (B, D)."""
        return self._source.graph()

    def blocks(self, rows: Rows, size: int = 64) -> Iterator[tuple[Rows, Block]]:
        """The maps of `rows`, in the order in which they lie in the cache; what is missing there is computed first.

        Args:
            size: the most images of a block.

        Yields:
            (places in `rows` (B,), maps float16 (B, D)); each place once.

        Raises:
            DataError: an image has been removed, changed or damaged.
            WeightsError: maps are missing, and the weights are too.
        """
        ids = ids_of(list(self.pack.index["image_id"].iloc[rows]))
        for places, block in self._cache.read_all(ids, lambda missing: self._compute(rows[missing])):
            for start in range(0, len(places), size):
                yield places[start : start + size], block[start : start + size]

    def read(self, rows: Rows) -> Block:
        """The maps of a few images, (len(rows), D), in memory."""
        maps_BD = np.empty((len(rows), self.form.dimension), np.float16)
        for places, block in self.blocks(rows):
            maps_BD[places] = block
        return maps_BD

    @cached_property
    def _cache(self) -> FeatureCache:
        folder = self.paths.cache / "features" / str(self.fingerprint["digest"])
        return FeatureCache(folder, self.form.dimension, "float16")

    @cached_property
    def _source(self) -> MapSource:
        form = self.fingerprint["maps"]
        wanted = form["wanted"]
        spec = Spec.from_dict(self.fingerprint)
        n, transform = self.form.tiles, spec.transform
        pooled = replace(spec, transform=replace(transform, height=transform.height // n, width=transform.width // n))
        return MapSource(pooled, Wanted(**{**wanted, "depths": tuple(wanted["depths"])}), self.paths)

    def _engine(self) -> Any:
        precision = self.fingerprint["precision"]
        if self.fingerprint["engine"] == "openvino":
            return Engine(self.graph.xml, precision)
        from ..engines.torch import TorchEngine, best_device

        device = self.fingerprint["device"] if self.fingerprint["device"] == best_device() else "cpu"
        return TorchEngine(self._source.network, Spec.from_dict(self.fingerprint).transform, device, precision)

    def _compute(self, rows: Rows) -> None:
        """Adds the maps of these rows to the cache."""
        say(f"maps: {len(rows):,} are not in the cache and are computed")
        files, ids = list(self.pack.index["path"].iloc[rows]), list(self.pack.index["image_id"].iloc[rows])
        transform = Spec.from_dict(self.fingerprint).transform
        check_room(self.paths, len(rows) * self.form.bytes, len(rows))
        write_shared_json(self._cache.folder / "fingerprint.json", self.fingerprint)

        def load_one(i: int) -> Pixels:
            return load(self.paths.raw / files[i], ids[i], transform, self.pack.reading)

        with finite(self.fingerprint["backbone"]), self._cache as cache, progress("maps", len(rows)) as bar:
            for start, batch_BD in self._engine().stream(load_one, len(rows)):
                cache.add(ids_of(ids[start : start + len(batch_BD)]), batch_BD)
                bar.add(len(batch_BD))
        self._cache.refresh()


def open_maps(pack: FeatureSet, paths: Paths) -> Maps:
    """The maps of the images of a feature set.

    Raises:
        DataError: the stage `features` has made none, as the task needs none.
    """
    fingerprint = pack.maps_fingerprint
    if fingerprint is None:
        raise DataError(
            "data/features has no maps, which only some tasks need",
            got=f"head.task: {pack.task}",
            allowed="head.task: anomaly",
            todo="run `graft repro`, which makes them in the stage features",
        )
    return Maps(pack, paths, fingerprint, MapForm.from_dict(fingerprint["maps"]))
