"""The structure of a timm network, found without its weights. Imports torch and timm, which takes seconds.

Networks are built on torch's meta device, where tensors have a shape and no values: the largest takes under a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm
import torch

from graft.tasks.common.backbones.layers import Shape, is_channels_first, places_of, trace_outputs
from graft.tasks.common.backbones.licences import stated
from graft.tasks.common.backbones.network import eval_transform
from graft.tasks.common.backbones.spec import Form

TESTED = Form(image_size="test")
"""As `features.image_size: null` uses a network."""


def build(name: str) -> torch.nn.Module:
    """The network in evaluation mode, with shapes but without values."""
    with torch.device("meta"):
        model: torch.nn.Module = timm.create_model(name, pretrained=False)
    return model.eval()


def facts_of(name: str) -> dict[str, Any]:
    """What timm says about a network, for JSON: `tag`, `parameters` (classifier included), `body_parameters` (without
    it), `features` (the input of the classifier), `labels` (0 without a classifier), `input` (height, width; with which
    timm tests it), `trained` (that of pre-training), `crop`, `interpolation`, `mean`, `std`, `licence`.
    """
    model = build(name)
    transform, trained = eval_transform(model, TESTED), eval_transform(model)
    known: Any = model.pretrained_cfg
    return {
        "tag": known.get("tag") or "",
        "parameters": _parameters(model),
        "body_parameters": _parameters(model) - sum(map(_parameters, _classifiers(model).values())),
        "features": int(getattr(model, "head_hidden_size", None) or model.num_features),  # type: ignore[arg-type]
        "labels": int(model.num_classes),  # type: ignore[arg-type]
        "input": [transform.height, transform.width],
        "trained": [trained.height, trained.width],
        "crop": transform.crop_pct,
        "interpolation": transform.interpolation,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "licence": stated(known.get("license")),
    }


def dissect(name: str) -> dict[str, Any]:
    """The parts of a network, found by passing an image without values through it; for JSON.

    `stages`: layers in a row whose outputs have the same height and width, in the order in which data flows, with the
    classifier; each with its `first` and `last` module, the `output` of the last, and the `parameters` of all.
    `outside`: parameters that belong to no layer (class tokens, positions).
    `classifier`: the last layer's name -> the shape of its weight, (classes, features). Distilled networks have two,
    networks without a classifier none. `classifier_parameters`: of these layers.
    `hidden`: the classifier's layers with parameters before the last one -> their numbers of parameters.
    `pooled`: the features of `features.output: pooled`; null where the last output is not a map of places.
    """
    model = build(name)
    transform = eval_transform(model, TESTED)
    image = torch.empty(1, 3, transform.height, transform.width, device="meta")
    before, maps = trace_outputs(model, partial(model.forward_features, image))  # type: ignore[arg-type,operator,misc]
    outputs, _ = trace_outputs(model, partial(model, image))
    last = _classifiers(model)
    stages = _stages(model, outputs)
    return {
        "stages": stages,
        "outside": _parameters(model) - sum(stage["parameters"] for stage in stages),
        "classifier": {part: list(layer.weight.shape) for part, layer in last.items()},  # type: ignore[arg-type]
        "classifier_parameters": sum(map(_parameters, last.values())),
        "hidden": _hidden(model, set(outputs) - set(before) - set(last)),
        "pooled": _channels(model, maps),
    }


def _classifiers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The last layers by name: distilled networks have two, networks without a classifier none."""
    names = model.pretrained_cfg["classifier"] if model.num_classes else ()  # type: ignore[index]
    return {part: model.get_submodule(part) for part in ([names] if isinstance(names, str) else names)}


def _hidden(model: torch.nn.Module, called: set[str]) -> dict[str, int]:
    """Of the modules that only the classifier calls, those with parameters of their own."""
    own = {name: list(part.parameters(recurse=False)) for name, part in model.named_modules() if name in called}
    return {name: sum(value.numel() for value in values) for name, values in own.items() if values}


def _channels(model: torch.nn.Module, maps: torch.Tensor | list[torch.Tensor]) -> int | None:
    """The channels of spatial maps; networks with two branches return a list."""
    mapped = isinstance(maps, torch.Tensor) and maps.ndim == 4 and is_channels_first(model)
    return int(maps.shape[1]) if mapped else None  # type: ignore[union-attr]


def _stages(model: torch.nn.Module, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = []
    places: Shape | None = None
    counted: set[torch.nn.Parameter] = set()  # layers may share some
    for name, module in _units(model, "", outputs):
        if places_of(model, outputs[name]) != places:
            places = places_of(model, outputs[name])
            stages.append({"first": name, "parameters": 0})
        new = set(module.parameters()) - counted
        counted |= new
        stages[-1] |= {
            "last": name,
            "output": list(outputs[name].shape[1:]),
            "parameters": stages[-1]["parameters"] + sum(parameter.numel() for parameter in new),
        }
    return stages


def _units(
    model: torch.nn.Module, prefix: str, outputs: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The network's layers in order: its children, or theirs where a container has outputs of several sizes."""
    parent = model.get_submodule(prefix)
    for part, module in parent.named_children():
        name = f"{prefix}.{part}" if prefix else part
        children = {f"{name}.{child}" for child, _ in module.named_children()} & set(outputs)
        sizes = {places_of(model, outputs[child]) for child in children}
        if name in outputs and not (isinstance(module, torch.nn.Sequential) and len(sizes) > 1):
            yield name, module
        else:
            yield from _units(model, name, outputs)


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
