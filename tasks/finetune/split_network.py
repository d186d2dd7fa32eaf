"""A network in two: the trunk, which stays frozen and is inference, and the tail, which is trained on the trunk's maps.

The cut goes before one module of the network. The trunk is the network up to there. The tail is the network with every
layer before the cut replaced by one that gives zeros of the right shape at no cost, and with the maps put in the place
of the cut module's input. So no network has to be rewritten, whatever it does between its layers; that the two together
are the network is checked.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from ..common.backbones.layers import Reached, layers_of
from ..common.core.errors import ParamsError

AGREE = 1e-3
"""By which the outputs of the two together may differ from the network's, relative to the largest."""

SHARE = 4
"""Where most layers have the same number of tokens, the last stage is a so many-th part of all."""


class CannotCut(ParamsError):
    """A network that is not one layer after the other around the cut."""


class Trunk(nn.Module):
    """Gives the input of the module `before`, flattened: (B, C * H * W) or (B, tokens * C)."""

    def __init__(self, network: nn.Module, before: str) -> None:
        super().__init__()
        self.network = network
        self._maps: torch.Tensor | None = None
        network.get_submodule(before).register_forward_pre_hook(self._note)

    def _note(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._maps = inputs[0]
        raise Reached

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        with suppress(Reached):
            self.network(x_BCHW)
        assert self._maps is not None
        maps, self._maps = self._maps, None
        return maps.flatten(1)


class Tail(nn.Module):
    """From the trunk's maps, flattened or not, to the network's output.

    Args:
        network: is copied; `into` gives back what was learned.
        before: the module that the cut goes before.
        input_shape: of an image, (C, H, W).

    Attributes:
        shape: of one image's maps.
    """

    def __init__(self, network: nn.Module, before: str, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.before, self._input_shape = before, input_shape
        self.shape, skipped = _look(network, before, input_shape)
        self.network = copy.deepcopy(network)
        for name, shape in skipped.items():
            parent, _, child = name.rpartition(".")
            setattr(self.network.get_submodule(parent), child, _Nothing(network.get_submodule(name), shape))
        self._maps: torch.Tensor | None = None
        self.network.get_submodule(before).register_forward_pre_hook(self._put)

    def _put(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        assert self._maps is not None
        return (self._maps, *inputs[1:])

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        count = len(maps)
        self._maps = maps.reshape(count, *self.shape)
        try:
            output: torch.Tensor = self.network(maps.new_zeros(1).expand(count, *self._input_shape))
        finally:
            self._maps = None
        return output

    def into(self, network: nn.Module) -> None:
        """Copies the trained parameters and buffers into the network that was cut."""
        trained = self.network.state_dict()
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if name in trained:
                    value.copy_(trained[name])


class _Nothing(nn.Module):
    """Zeros in the shape of a layer's output; they take no memory. What else is asked of the layer it still knows."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # not as a part, or its parameters were the tail's
        self.shape = shape

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return x.new_zeros(1).expand(len(x), *self.shape)


def last_stage(network: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """The module before which to cut for the last stage: the first, with parameters, of the last layers that have the
    same height and width; of the last quarter of all, where these are more than half of the network, as in one of
    tokens.
    """
    layers = [layer for layer in layers_of(network, input_shape) if layer.places and max(layer.places) > 1]
    learned = [layer for layer in layers if any(True for _ in network.get_submodule(layer.name).parameters())]
    last = [layer.name for layer in learned if layer.places == learned[-1].places]
    if len(last) > len(learned) / 2:
        last = last[-max(1, len(learned) // SHARE) :]
    return last[0]


def cut(network: nn.Module, before: str, input_shape: tuple[int, int, int]) -> tuple[Trunk, Tail]:
    """The two, in evaluation mode.

    Raises:
        CannotCut: together they are not the network, whose later layers take more than the maps.
    """
    network.eval()
    trunk, tail = Trunk(copy.deepcopy(network), before).eval(), Tail(network, before, input_shape).eval()
    example = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, parts = network(example), tail(trunk(example))
    if float((whole - parts).abs().max()) > AGREE * float(whole.abs().max()):
        raise CannotCut(
            "params.yaml: this backbone cannot be cut for `finetune.layers: last_stage`",
            got=f"from {before} on, its layers take more than the maps of the layer before",
            allowed="finetune.layers: all | norm",
            todo="set `finetune.layers: all`",
        )
    return trunk, tail


def _look(
    network: nn.Module, before: str, input_shape: tuple[int, int, int]
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """The shape of the maps, and of the outputs of the layers before the cut, by name."""
    layers = layers_of(network, input_shape)
    names = [layer.name for layer in layers]
    skipped = {layer.name: layer.shape for layer in layers[: names.index(before)]}
    seen: list[tuple[int, ...]] = []
    hook = network.get_submodule(before).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1:]))
    with torch.no_grad():
        network(torch.zeros(1, *input_shape))
    hook.remove()
    return tuple(seen[0]), skipped
