"""The maps that a task's head needs, computed beside the pooled features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ..common.backbones.spec import Spec
from ..common.core.paths import Paths
from ..common.engines.openvino import Engine
from ..common.images.shards import hash_of
from ..common.maps.form import NECKS, MapForm, Wanted
from ..common.maps.graph import MapSource
from .extractor import AnyEngine, Extractor
from .params import FeaturesParams


def shown(params: FeaturesParams, task: str) -> FeaturesParams:
    """For tasks whose heads need maps, `features.crop: auto` shows the whole image: a defect may lie at its edge."""
    return params.model_copy(update={"crop": "squash"}) if task in NECKS and params.crop == "auto" else params


def wanted(params: FeaturesParams, task: str) -> Wanted | None:
    """The maps that the task needs, if it needs any.

    Raises:
        ParamsError: there are several backbones or sizes.
    """
    if task not in NECKS:
        return None
    assert params.eye
    depths = () if params.maps == "auto" else params.maps
    return Wanted(NECKS[task], depths, params.map_channels, params.tiles)


def targets_of(manifest: pd.DataFrame, raw: Path) -> dict[str, str]:
    """The md5 of each mask and target, by its path: the head learns them, and must be trained again if one changes."""
    named = sorted({name for column in ("mask", "target") for name in manifest[column].dropna()})
    return {name: hash_of(raw / name) for name in named}


def map_extractor(pooled: Extractor, maps: Wanted, paths: Paths) -> tuple[Extractor, MapForm]:
    """The same backbone as far as its maps are needed, on the same engine in the same precision.

    Raises:
        ParamsError: the backbone does not have the maps that are asked for.
    """
    source = MapSource(pooled.spec, maps, paths)
    build: Callable[[], AnyEngine]
    xml = None
    if pooled.engine == "openvino":
        graph = source.graph()
        spec, xml, build = graph.spec, graph.xml, lambda: Engine(graph.xml, pooled.precision)
    else:
        spec = source.spec_of(source.form)
        build = lambda: _torch(source, spec, pooled)  # noqa: E731
    return Extractor(spec, pooled.engine, pooled.device, pooled.precision, pooled.why, build, xml), source.form


def _torch(source: MapSource, spec: Spec, pooled: Extractor) -> AnyEngine:
    from ..common.engines.torch import TorchEngine

    return TorchEngine(source.network, spec.transform, pooled.device, pooled.precision)
