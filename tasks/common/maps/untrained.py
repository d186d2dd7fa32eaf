"""The maps of the same network with random weights: what transfer is worth is the difference."""

from __future__ import annotations

from dataclasses import asdict, replace

from ..backbones.spec import Spec
from ..backbones.weights import find_weights
from ..core.files import json_digest
from .form import Wanted
from .graph import MapSource
from .maps import Maps


def is_untrained(maps: Maps) -> bool:
    """Whether its weights are random already."""
    return str(maps.fingerprint["weights"]).startswith("random")


def untrained(maps: Maps) -> Maps:
    """The maps of the same images and form with random weights; they are computed when they are first read."""
    from ..backbones import network

    facts, paths = maps.fingerprint, maps.paths
    spec = Spec.from_dict(facts)
    source = find_weights(spec.backbone, "random", paths.weights)
    tiles, transform = maps.form.tiles, spec.transform
    single = replace(transform, height=transform.height // tiles, width=transform.width // tiles)
    made = network.spec_of(network.create(spec.backbone, source, spec.form), spec.backbone, source, spec.form)
    wanted = facts["maps"]["wanted"]
    of = MapSource(replace(made, transform=single), Wanted(**{**wanted, "depths": tuple(wanted["depths"])}), paths)
    told = {**facts, **asdict(of.spec_of(maps.form))}
    del told["digest"]
    return replace(maps, fingerprint={**told, "digest": json_digest(told)})
