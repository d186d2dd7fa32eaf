"""What a timm network is made of, found without its weights. Imports torch and timm, which takes seconds.

Networks are built on torch's meta device, where tensors have a shape and no numbers: the largest takes under a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch

from .network import eval_transform

Shape = tuple[int, ...]
"""Of one image's tensor: C x H x W, or tokens x C."""


@dataclass(frozen=True)
class Stage:
    """Layers in a row whose outputs have the same height and width.

    Attributes:
        first, last: names of modules.
        output: of the last one.
        parameters: of all of them together.
    """

    first: str
    last: str
    output: Shape
    parameters: int


@dataclass(frozen=True)
class Anatomy:
    """A network's parts.

    Attributes:
        stages: in the order in which data move, with the classifier.
        own: parameters that belong to no layer (class tokens, positions).
        classifier: the last layer's name -> the shape of its weight, (classes, features). Distilled networks have two,
            networks without a classifier none.
        classifier_parameters: of these layers.
        hidden: the classifier's layers with parameters before the last one -> their numbers of parameters.
        pooled: the features of `features.output: pooled`; None where the last output is not a map of places.
    """

    stages: tuple[Stage, ...]
    own: int
    classifier: dict[str, Shape]
    classifier_parameters: int
    hidden: dict[str, int]
    pooled: int | None


def build(name: str) -> torch.nn.Module:
    """The network in evaluation mode, with shapes and without numbers."""
    with torch.device("meta"):
        model: torch.nn.Module = timm.create_model(name, pretrained=False)
    return model.eval()


def facts_of(name: str) -> dict[str, Any]:
    """What timm says of a network, for JSON: `tag`, `parameters` (classifier included), `features` (what the classifier
    sees), `labels` (0 where there is no classifier), `input` (height, width), `crop`, `interpolation`, `mean`, `std`,
    `licence`.
    """
    model = build(name)
    transform = eval_transform(model)
    known: Any = model.pretrained_cfg
    return {
        "tag": known.get("tag") or "",
        "parameters": _parameters(model),
        "features": int(getattr(model, "head_hidden_size", None) or model.num_features),  # type: ignore[arg-type]
        "labels": int(model.num_classes),  # type: ignore[arg-type]
        "input": [transform.height, transform.width],
        "crop": transform.crop_pct,
        "interpolation": transform.interpolation,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "licence": known.get("license") or "",
    }


def dissect(name: str) -> Anatomy:
    """The parts of a network, found by sending an image without numbers through it."""
    model = build(name)
    transform = eval_transform(model)
    image = torch.empty(1, 3, transform.height, transform.width, device="meta")
    before, maps = _trace(model, partial(model.forward_features, image))  # type: ignore[arg-type,operator,misc]
    outputs, _ = _trace(model, partial(model, image))
    names = model.pretrained_cfg["classifier"] if model.num_classes else ()  # type: ignore[index]
    classifier: dict[str, torch.nn.Module] = {
        part: model.get_submodule(part) for part in ([names] if isinstance(names, str) else names)
    }
    convolutional = maps.ndim == 4 and _is_channels_first(model)
    return Anatomy(
        stages=tuple(_stages(model, outputs)),
        own=sum(parameter.numel() for parameter in model.parameters(recurse=False)),
        classifier={part: tuple(layer.weight.shape) for part, layer in classifier.items()},  # type: ignore[arg-type]
        classifier_parameters=sum(map(_parameters, classifier.values())),
        hidden=_hidden(model, set(outputs) - set(before) - set(classifier)),
        pooled=int(maps.shape[1]) if convolutional else None,
    )


def _trace(model: torch.nn.Module, run: Callable[[], torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Module -> its first output, of all modules that `run` calls, and what `run` gives."""
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, _module: object, _inputs: object, output: Any) -> None:
        outputs.setdefault(name, output[0] if isinstance(output, (tuple, list)) else output)

    hooks = [part.register_forward_hook(partial(note, name)) for name, part in model.named_modules() if name]
    try:
        with torch.inference_mode():
            return outputs, run()
    finally:
        for hook in hooks:
            hook.remove()


def _hidden(model: torch.nn.Module, called: set[str]) -> dict[str, int]:
    """Of modules that only the classifier calls, those that hold parameters themselves."""
    own = {name: list(part.parameters(recurse=False)) for name, part in model.named_modules() if name in called}
    return {name: sum(value.numel() for value in values) for name, values in own.items() if values}


def _stages(model: torch.nn.Module, outputs: dict[str, torch.Tensor]) -> Iterator[Stage]:
    stage: Stage | None = None
    places: Shape = ()
    for name, module in _units(model, "", outputs):
        output, count = outputs[name], _parameters(module)
        here = _places(model, output)
        if stage is not None and here == places:
            stage = Stage(stage.first, name, tuple(output.shape[1:]), stage.parameters + count)
            continue
        if stage is not None:
            yield stage
        stage, places = Stage(name, name, tuple(output.shape[1:]), count), here
    if stage is not None:
        yield stage


def _units(
    model: torch.nn.Module, prefix: str, outputs: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The network's layers in order: its children, or theirs where a container goes through several sizes."""
    parent = model.get_submodule(prefix)
    for part, module in parent.named_children():
        name = f"{prefix}.{part}" if prefix else part
        inner = {f"{name}.{child}" for child, _ in module.named_children()} & set(outputs)
        is_container = isinstance(module, (torch.nn.Sequential, torch.nn.ModuleList))
        sizes = {_places(model, outputs[child]) for child in inner}
        if inner and (name not in outputs or (is_container and len(sizes) > 1)):
            yield from _units(model, name, outputs)
        elif name in outputs:
            yield name, module


def _places(model: torch.nn.Module, output: torch.Tensor) -> Shape:
    """Height and width of maps, the number of tokens, or nothing for a vector."""
    shape = tuple(output.shape[1:])
    return shape[1:] if len(shape) == 3 and _is_channels_first(model) else shape[:-1]


def _is_channels_first(model: torch.nn.Module) -> bool:
    return str(getattr(model, "output_fmt", None) or "NCHW") == "NCHW"


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
