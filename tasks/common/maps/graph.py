"""The network that computes maps: as a graph in the cache, converted once, or in torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones.graph import CONVERTER, Graph, converted, is_whole
from ..backbones.spec import Spec, libraries
from ..backbones.weights import same_weights
from ..core.files import json_digest, read_json
from ..core.paths import Paths
from .form import MapForm, Wanted

if TYPE_CHECKING:
    from .network import MapNetwork

MAPS = 2
"""Raised whenever a change in this folder makes other maps of the same image."""

NOTE = "maps.json"
"""The file beside a graph that says what its maps are."""


@dataclass(frozen=True)
class MapSource:
    """The maps of a backbone.

    Attributes:
        pooled: of the same backbone's features.
        wanted: of its maps.
    """

    pooled: Spec
    wanted: Wanted
    paths: Paths

    @cached_property
    def folder(self) -> Path:
        """Of the graph, by all that decides what it computes; what of an image is shown decides nothing."""
        spec = self.pooled
        key = {name: getattr(spec, name) for name in ("backbone", "weights", "weights_sha256")}
        made = {"form": asdict(spec.form), "maps": asdict(self.wanted), "libraries": libraries()}
        return self.paths.cache / "graphs" / json_digest({**key, **made, "converter": CONVERTER, "version": MAPS})

    @cached_property
    def network(self) -> MapNetwork:
        """In torch; takes seconds.

        Raises:
            ParamsError: the backbone does not have the maps that are asked for.
            WeightsError: the weights are missing, or have changed since the features were computed.
        """
        from ..backbones import network
        from .network import MapNetwork

        spec = self.pooled
        source = same_weights(spec.backbone, spec.weights, spec.weights_sha256, self.paths.weights)
        transform = spec.transform
        shape = (transform.channels, transform.height, transform.width)
        return MapNetwork(network.create_again(spec, source), spec.backbone, self.wanted, shape).eval()

    def graph(self) -> Graph:
        """For OpenVINO, from the cache or newly converted (which takes some seconds).

        Raises:
            as `network`.
        """
        note = f"converting {self.pooled.backbone} as far as its maps are needed; once for these maps"
        spec, notes = self.spec_of(self.form), {NOTE: self.form.as_dict()}
        return replace(converted(lambda: self.network, spec, self.folder, note, notes), spec=spec)

    @cached_property
    def form(self) -> MapForm:
        """Of the maps; known without torch once there is a graph."""
        if is_whole(self.folder):
            return MapForm.from_dict(read_json(self.folder / NOTE))
        return self.network.form

    def spec_of(self, form: MapForm) -> Spec:
        """Of a graph that gives maps: its input are all tiles."""
        transform, n = self.pooled.transform, self.wanted.tiles
        whole = replace(transform, height=n * transform.height, width=n * transform.width)
        return replace(self.pooled, dimension=form.dimension, transform=whole)
