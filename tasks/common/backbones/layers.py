"""The layers of a network in the order in which data move through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Shape = tuple[int, ...]
"""Of one image's tensor: C x H x W, or tokens x C."""


class Reached(Exception):
    """Raised by a hook when all that is wanted of a network is there: the layers behind need not run."""


@dataclass(frozen=True)
class Layer:
    """Attributes:
    name: of the module.
    shape: of one image's output.
    places: height and width of maps, the number of tokens, or nothing for a vector.
    """

    name: str
    shape: Shape
    places: Shape


def layers_of(model: torch.nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network in the order in which data move: its parts, and of a sequence the parts of that.

    Args:
        model: on the processor; put into evaluation mode.
        input_shape: of an image, (C, H, W).
    """
    outputs, _ = trace_outputs(model.eval(), partial(model, torch.zeros(1, *input_shape)))
    body = getattr(model, "network", model)
    order = {name: place for place, name in enumerate(outputs)}
    names = sorted(_smallest(model, "", outputs), key=order.__getitem__)
    return [Layer(name, tuple(outputs[name].shape[1:]), places_of(body, outputs[name])) for name in names]


def _smallest(model: torch.nn.Module, prefix: str, outputs: dict[str, torch.Tensor]) -> Iterator[str]:
    parent = model.get_submodule(prefix)
    for part, module in parent.named_children():
        name = f"{prefix}.{part}" if prefix else part
        if name in outputs and not isinstance(module, torch.nn.Sequential):
            yield name
        else:
            yield from _smallest(model, name, outputs)


def trace_outputs(
    model: torch.nn.Module, run: Callable[[], torch.Tensor]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
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


def places_of(model: torch.nn.Module, output: torch.Tensor) -> Shape:
    """Height and width of maps, the number of tokens, or nothing for a vector."""
    shape = tuple(output.shape[1:])
    return shape[1:] if len(shape) == 3 and is_channels_first(model) else shape[:-1]


def is_channels_first(model: torch.nn.Module) -> bool:
    return str(getattr(model, "output_fmt", None) or "NCHW") == "NCHW"
