"""Which modules of a network give its maps. Imports torch, which takes seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ..backbones.layers import layers_of, places_of, trace_outputs
from ..core.errors import ParamsError
from .form import Depth, Neck

STRIDES: dict[Neck, tuple[int, ...]] = {"patches": (8, 16), "pyramid": (4, 8, 16, 32)}
"""Of the maps that are taken. For patches those of the second and third stage, as in PatchCore (Roth et al. 2022)."""

BLOCKS: dict[Neck, tuple[float, ...]] = {"patches": (1 / 2, 3 / 4), "pyramid": (1 / 4, 1 / 2, 3 / 4, 1.0)}
"""Of a network whose blocks all have the same stride: after which shares of them maps are taken."""


@dataclass(frozen=True)
class Stage:
    """A module whose output are maps, and their stride: pixels of the input a place."""

    module: str
    stride: int


def modules_for(
    network: torch.nn.Module, backbone: str, neck: Neck, depths: tuple[Depth, ...], shape: tuple[int, int, int]
) -> list[str]:
    """The names of the modules whose outputs are the maps, in the order in which they are asked for.

    Args:
        depths: none for those that suit the neck.
        shape: of an image, (C, H, W).

    Raises:
        ParamsError: the network has no such depth, or none at all.
    """
    stages = stages_of(network, shape)
    by_stride = {stage.stride: stage.module for stage in stages}  # the last of each
    in_blocks = len(stages) > 1 and len(by_stride) == 1
    if not depths:
        return _in_blocks(stages, neck) if in_blocks else _in_strides(by_stride, backbone, neck)
    known = {str(number): stage.module for number, stage in enumerate(stages)} if in_blocks else {}
    known = known or {str(stride): module for stride, module in by_stride.items()}
    names = {name for name, _ in network.named_modules() if name}
    found = [known.get(str(depth)) or (depth if depth in names else None) for depth in depths]
    missing = [depth for depth, module in zip(depths, found, strict=True) if module is None]
    if missing:
        what = "numbers of blocks" if in_blocks else "strides"
        raise ParamsError(
            f"params.yaml: {backbone} does not have every depth in `features.maps`",
            got=", ".join(map(str, missing)),
            allowed=f"auto, or a list of {what} ({', '.join(known) or 'none'}) or of names of modules",
            todo="change `features.maps`",
        )
    return list(dict.fromkeys(str(module) for module in found))


def stages_of(network: torch.nn.Module, shape: tuple[int, int, int]) -> list[Stage]:
    """What timm says of the network's stages; where it says nothing, the last layer of each stride. Strides of maps are
    measured: in Keras' variants some are other than timm says."""
    info = getattr(network, "feature_info", None)
    listed: list[dict[str, Any]] = list(getattr(info, "info", info) or [])
    stages = [Stage(str(one["module"]), int(one["reduction"])) for one in listed if "module" in one]
    names = {name for name, _ in network.named_modules()}
    if stages and all(stage.module in names for stage in stages):
        outputs, _ = trace_outputs(network, partial(network, torch.zeros(1, *shape)))
        return [replace(stage, stride=_stride(stage, outputs, network, shape)) for stage in stages]
    layers = [layer for layer in layers_of(network, shape) if len(layer.places) == 2 and max(layer.places) > 1]
    last = {_power(shape[1], layer.places[0]): layer.name for layer in layers}
    return [Stage(name, stride) for stride, name in last.items()]


def _stride(
    stage: Stage, outputs: dict[str, torch.Tensor], network: torch.nn.Module, shape: tuple[int, int, int]
) -> int:
    output = outputs.get(stage.module)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        return stage.stride
    return _power(shape[1], places_of(network, output)[0])


def _power(pixels: int, places: int) -> int:
    """The power of two nearest to a stride; some networks lose places at the edges."""
    return int(2 ** round(math.log2(pixels / places)))


def _in_blocks(stages: list[Stage], neck: Neck) -> list[str]:
    """Of blocks that all have one stride."""
    last = [max(0, round(share * len(stages)) - 1) for share in BLOCKS[neck]]
    return list(dict.fromkeys(stages[number].module for number in last))


def _in_strides(by_stride: dict[int, str], backbone: str, neck: Neck) -> list[str]:
    found = [by_stride[stride] for stride in STRIDES[neck] if stride in by_stride]
    if not found:
        raise ParamsError(
            f"params.yaml: {backbone} has no maps of the strides that `features.maps: auto` takes",
            got=", ".join(map(str, by_stride)) or "a network without maps",
            allowed=f"a network with maps of stride {' or '.join(map(str, STRIDES[neck]))}, or a transformer's tokens",
            todo="name depths in `features.maps`, or another network in `features.backbone`",
        )
    return found
